"""The kit: a folder with everything that a device needs to measure. It works without this package.

manifest.json    what to measure and how: settings, the description of every op, each model's file, SHA-256 and input
models/          the models, named by their hashes
wheels/          the runtime for a board that lacks it, if requested; the agent unpacks it beside this folder
agent.py         `python3 agent.py --kit .` measures; it needs Python 3.7 and the runtime
ofa_agent/       the code of the agent
results.jsonl    the measurements so far; `ofa-profile --import` makes a table from it
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
from ofa_profiler.protocol.records import FORMAT, FORMAT_WITH_FORMS, Run
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import runtimes

AGENT_FILE = "agent.py"
RESULTS_FILE = "results.jsonl"

_README = """\
# A kit that measures neural network ops on this board

It needs {needs}, and no connection to anything.

    python3 agent.py --kit .

measures the {count} models of this folder and writes `results.jsonl`. Close other programs before. If it
is interrupted, start it again: it resumes. Then copy `results.jsonl` to a computer with ofa-profiler:

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
    def variants(self) -> Mapping[Forms, ModelFile]: ...


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
) -> Run:
    """Return the first line of a new journal. `ops` are the ops of the models, in the same order.

    The device chooses the form of each model by `trials`. Without trials, it measures the plain models.
    """
    models = list(models)
    run: dict[str, Any] = {
        "type": "run",
        "format": FORMAT_WITH_FORMS if trials else FORMAT,
        # In microseconds, because the name of the results folder on a device contains the request and this time.
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
        "settings": settings.to_json(),
        "about": {"tool_version": __version__, **about},
        "models": {model.key: model.sha256 for model in models},
    }
    if ops is not None:
        run["ops"] = [op.to_json() for op in ops]
    if trials:
        variants = {m.key: {forms: file.sha256 for forms, file in m.variants.items()} for m in models if m.variants}
        run["forms"] = Candidates(tuple(trials), variants).to_json()
    return Run.from_json(run)


@dataclass(frozen=True)
class KitWheels:
    """The wheels of a runtime for the Python that `tag` names, for example `aarch64-cp311`."""

    tag: str
    paths: Sequence[Path]


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
    entries = []
    for model in models:
        entry = {"key": model.key, **_stored(model, folder)}
        entry["inputs"] = [tensor.to_json() for tensor in model.inputs]
        if run.candidates is not None and model.variants:
            entry["variants"] = [
                {"forms": forms.to_json(), **_stored(file, folder)} for forms, file in model.variants.items()
            ]
        entries.append(entry)
    for name, content in agent_files().items():
        write_bytes(folder / name, content)
    write_text(folder / "README.md", _README.format(needs=_needs(run, wheels), count=len(entries)))
    if results:
        write_bytes(folder / RESULTS_FILE, results)
    manifest = {name: value for name, value in run.to_json().items() if name not in ("type", "models")}
    if wheels is not None:
        for path in wheels.paths:
            _place(path, folder / "wheels" / path.name)
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.paths}
        manifest["wheels"] = {"for": wheels.tag, "files": hashes}
    write_text(folder / "manifest.json", json.dumps({**manifest, "models": entries}, indent=1) + "\n")


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
    return {"file": name, "sha256": model.sha256}


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
