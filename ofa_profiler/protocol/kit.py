"""The kit: a folder with everything that a device needs to measure. It works without this package.

manifest.json    what to measure and how: settings, the description of every op, each model's file, SHA-256 and input
models/          the models, and exact values of their inputs, named by their hashes
wheels/          the runtime for a board that lacks it, if requested; the agent unpacks it beside this folder
agent.py         `python3 agent.py --kit .` measures; it needs Python 3.7 and the runtime
ofa_agent/       the code of the agent
results.jsonl    the measurements so far; `ofa-profile --import` makes a table from it
networks/        whole networks, a folder like this one without the agent; their results are in results-networks.jsonl
README.md        instructions for whoever finds the folder on a board
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import device_agents
from ofa_profiler.base.files import write_bytes, write_text
from ofa_profiler.base.version import __version__
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import Candidates, Forms, Trial
from ofa_profiler.protocol.records import FORMAT, FORMAT_WITH_FORMS, FORMAT_WITH_VALUES, Run
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import runtimes

AGENT_FILE = "agent.py"
RESULTS_FILE = "results.jsonl"
#: Whole networks, which are measured after the ops in the forms chosen for them, and their results.
NETWORKS_FOLDER, NETWORKS_FILE = "networks", "results-networks.jsonl"

_README = """\
# A kit that measures neural network ops on this board

It needs {needs}, and no connection to anything.

    python3 agent.py --kit .

measures the {what}.
Close other programs before. If it is interrupted, start it again: it resumes. Then copy the results to a computer with
ofa-profiler, into one folder:

    ofa-profile --import results.jsonl --out latency_tables
"""


class ModelFile(Protocol):
    """The attributes of a model that a kit needs. Any object with them fits."""

    @property
    def key(self) -> str: ...
    @property
    def path(self) -> Path: ...  # a file that ends in .gz is compressed
    @property
    def sha256(self) -> str: ...  # of the content before compression
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def values(self) -> Mapping[str, Path]: ...  # files of exact values, by the name of the input
    @property
    def variants(self) -> Mapping[Forms, ModelFile]: ...
    @property
    def encodings(self) -> Mapping[str, ModelFile]: ...  # of int8, for an agent that knows the processor


def agent_source() -> Path:
    """Return the script that starts the agent. The folder `ofa_agent` beside it contains the code."""
    return Path(device_agents.__path__[0]) / AGENT_FILE


def agent_files() -> dict[str, bytes]:
    """Return all files of the agent, by their path in the folder of the agent.

    The worker file of a runtime from another package is added. Raises `UsageError` if a file cannot be read.
    """
    script = agent_source()
    code = sorted((script.parent / "ofa_agent").rglob("*.py"))
    files = {path.relative_to(script.parent).as_posix(): path for path in [script, *code]}
    files |= {f"ofa_agent/runtimes/{name}.py": runtime.worker for name, runtime in runtimes().items()}
    try:
        return {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise UsageError(f"cannot read a file of the agent: {error}") from error


def run_record(
    models: Iterable[ModelFile],
    settings: Settings,
    about: Mapping[str, Any],
    ops: Iterable[Op] | None = None,
    trials: Sequence[Trial] = (),
    *,
    forms_are_decided: bool = False,
    profile: str | None = None,
) -> Run:
    """Return the first line of a new journal. `ops` are the ops of the models, in the same order.

    The device chooses the form of each model by `trials`. Without trials, it measures the plain models, or with
    `forms_are_decided` the models in the forms that it has chosen for another journal. `profile` is the key of the
    model that the runtime is to profile, too.
    """
    models = list(models)
    run: dict[str, Any] = {
        "type": "run",
        "format": _format(models, bool(trials) or forms_are_decided, profile),
        # In microseconds, because the name of the results folder on a device contains the request and this time.
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
        "settings": settings.to_json(),
        "about": {"tool_version": __version__, **about},
        "models": {model.key: model.sha256 for model in models},
    }
    if ops is not None:
        run["ops"] = [op.to_json() for op in ops]
    if trials or forms_are_decided:
        variants = {m.key: {forms: file.sha256 for forms, file in m.variants.items()} for m in models if m.variants}
        run["forms"] = Candidates(tuple(trials), variants).to_json()
    if profile is not None:
        run["profile"] = profile
    return Run.from_json(run)


def _format(models: Iterable[ModelFile], has_forms: bool, profile: str | None) -> int:
    """The oldest version whose agent does not ignore a part of the request."""
    if profile is not None or any(model.values or any(t.span is not None for t in model.inputs) for model in models):
        return FORMAT_WITH_VALUES
    return FORMAT_WITH_FORMS if has_forms else FORMAT


@dataclass(frozen=True)
class KitWheels:
    """The wheels of a runtime for the Python that `tag` names, for example `aarch64-cp311`."""

    tag: str
    paths: Sequence[Path]

    @property
    def machine(self) -> str:
        """The architecture, like `aarch64`."""
        return self.tag.rpartition("-cp")[0]


def check_new(folder: Path) -> None:
    """Raise `UsageError` unless `folder` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; give a new folder for the kit")


def write_kit(
    folder: Path,
    models: Iterable[ModelFile],
    run: Run,
    results: bytes = b"",
    wheels: KitWheels | None = None,
) -> None:
    """Fill `folder` for the request `run`. `results` are the lines of a journal that the agent continues.

    The manifest is written last, so a folder with a manifest is complete. Raises `UsageError` if it cannot be written.
    """
    models = list(models)
    for name, content in agent_files().items():
        write_bytes(folder / name, content)
    what = f"{len(models)} models of this folder and writes `{RESULTS_FILE}`"
    if (folder / NETWORKS_FOLDER).exists():
        what = (
            f"{len(models)} ops and then the networks of this folder, and writes `{RESULTS_FILE}` and `{NETWORKS_FILE}`"
        )
    write_text(folder / "README.md", _README.format(needs=_needs(run, wheels), what=what))
    if results:
        write_bytes(folder / RESULTS_FILE, results)
    more: dict[str, Any] = {}
    if wheels is not None:
        for path in wheels.paths:
            _place(path, folder / "wheels" / path.name)
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.paths}
        more["wheels"] = {"for": wheels.tag, "files": hashes}
    write_models(folder, models, run, more)


def write_models(folder: Path, models: Iterable[ModelFile], run: Run, more: Mapping[str, Any] | None = None) -> None:
    """Write models and manifest only: the part of a kit that is measured after its ops. `more` is for the manifest."""
    entries = []
    for model in models:
        entry = {"key": model.key, **_stored(model, folder)}
        entry["inputs"] = _described(model, folder)
        if run.candidates is not None and model.variants:
            entry["variants"] = [
                {"forms": forms.to_json(), **_stored(file, folder)} for forms, file in model.variants.items()
            ]
        entries.append(entry)
    manifest = {name: value for name, value in run.to_json().items() if name not in ("type", "models")}
    manifest = {**manifest, **(more or {}), "models": entries}
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _needs(run: Run, wheels: KitWheels | None) -> str:
    if wheels is not None:
        machine, _, python = wheels.tag.rpartition("-cp")
        return f"Python {python[0]}.{python[1:]} on {machine} (the runtime is in `wheels/`)"
    name = run.settings.target.runtime
    runtime = runtimes().get(name)
    return f"Python 3.7 or newer and the package `{runtime.packages[0][0] if runtime else name}`"


def _stored(model: ModelFile, folder: Path) -> dict[str, Any]:
    """Place a model into the kit. Return its part of the manifest."""
    packed = ".gz" if model.path.suffix == ".gz" else ""
    name = f"{model.sha256}{Path(model.path.name.removesuffix(packed)).suffix}{packed}"
    _place(model.path, folder / "models" / name)
    stored: dict[str, Any] = {"file": name, "sha256": model.sha256}
    if model.encodings:
        stored["encodings"] = {
            name: {**_stored(other, folder), "inputs": _described(other, folder)}
            for name, other in model.encodings.items()
        }
    return stored


def _described(model: ModelFile, folder: Path) -> list[dict[str, Any]]:
    """Place the exact values of the inputs into the kit. Return the descriptions of the inputs."""
    if unknown := model.values.keys() - {tensor.name for tensor in model.inputs}:
        raise ValueError(f"{model.key}: values for {', '.join(sorted(unknown))}, which the model does not have")
    for path in model.values.values():
        _place(path, folder / "models" / path.name)
    exact = {name: {"values": path.name} for name, path in model.values.items()}
    return [{**tensor.to_json(), **exact.get(tensor.name, {})} for tensor in model.inputs]


def _place(source: Path, target: Path) -> None:
    """Create a hard link, which costs nothing, or a copy if the file system does not support links."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return
        with contextlib.suppress(OSError):
            target.hardlink_to(source)
            return
        shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
