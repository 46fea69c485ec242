"""Runs Google's `benchmark_model` on a phone: brings program and models there, and starts it once per visit.

The program prints statistics and no samples, so a visit has one sample, the median of its runs (their mean in older
versions of the program); `statistics` in the record has the rest.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import secrets
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.devices.android.benchmark_inputs import Input, check_inputs, input_options
from ofa_profiler.devices.android.benchmark_messages import lines_of, why_failed
from ofa_profiler.devices.android.benchmark_model import DEFAULT, MAX_OUTPUT, Timing, arguments, parse
from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError
from ofa_profiler.protocol.settings import Settings

_BATCH = 4 << 20
#: Prints `SHA-256  name` of every file in a folder, the first argument.
_HAVE = 'mkdir -p "$1" && cd "$1" && for file in *; do [ -f "$file" ] && sha256sum "$file"; done; true'
#: Unpacks a compressed tar into the folder that is the first argument; the second is a name for the meantime.
_TAKE = """\
new="$1/$2"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$new" && cd "$new" && tar -xvzf - && sha256sum -c SHA256SUMS && rm SHA256SUMS && chmod 700 * && mv * "$1"
"""


def why_not_pinned(shell: Shell, cores: Sequence[int]) -> str:
    """Try to pin a program to `cores`. Return why this does not work; empty if it does, or without `cores`."""
    if not cores:
        return ""
    done = shell.run([*_pinned(cores), "true"])
    said = one_line(done.stderr) or f"exit code {done.exit_code}"
    return "" if done.exit_code == 0 else f"cores {', '.join(map(str, cores))} cannot be used ({said})"


def _pinned(cores: Sequence[int]) -> list[str]:
    return ["taskset", f"{sum(1 << core for core in cores):x}"]


@dataclass(frozen=True)
class BenchmarkRunner:
    """The program on one phone, in a folder with the models."""

    shell: Shell
    folder: str
    #: Its name there, which has its SHA-256.
    program: str
    settings: Settings
    cores: Sequence[int]

    @classmethod
    def bring(
        cls,
        shell: Shell,
        root: str,
        program: bytes,
        models: Mapping[Path, str],
        settings: Settings,
        cores: Sequence[int],
    ) -> BenchmarkRunner:
        """Make sure that program and models (with their SHA-256) are on the phone, complete. Raises `DeviceError`."""
        digest = hashlib.sha256(program).hexdigest()
        runner = cls(shell, f"{root}/benchmark_model", f"benchmark_model-{digest}", settings, cores)
        contents: dict[str, Path | bytes] = {runner.program: program} | {_unpacked(path.name): path for path in models}
        hashes = {_unpacked(path.name): sha256 for path, sha256 in models.items()}
        runner._bring(contents, {runner.program: digest} | hashes)
        return runner

    @property
    def runtime(self) -> dict[str, Any]:
        """For the record of the device. The program does not report its version."""
        version = f"benchmark_model {self.program.rpartition('-')[2][:16]}"
        return {"name": "litert", "version": version, "provider": self.settings.provider or DEFAULT}

    def _bring(self, contents: Mapping[str, Path | bytes], hashes: Mapping[str, str]) -> None:
        listed = self.shell.run(["sh", "-c", _HAVE, "sh", self.folder]).stdout.decode("utf-8", "replace")
        there = {line[66:]: line[:64] for line in listed.splitlines() if line[64:66] == "  "}
        missing = {name: content for name, content in contents.items() if there.get(name) != hashes[name]}
        for some in _batches(missing):
            sums = "".join(f"{hashes[name]}  {name}\n" for name in some).encode()
            words = ["sh", "-c", _TAKE, "sh", self.folder, f".incoming-{secrets.token_hex(8)}"]
            done = self.shell.run(words, _packed({**some, "SHA256SUMS": sums}))
            if done.exit_code != 0:
                problem = one_line(done.stderr)
                kind = DeviceError if "No space left" in problem else TransientDeviceError
                raise kind(f"{self.shell.spec}: models could not be put on the phone: {problem or done.exit_code}")

    def visit(self, model: Mapping[str, Any], visit_s: float, last_median_ns: float | None) -> dict[str, Any]:
        """Run a model for about `visit_s` -> the answer of a worker. Raises `DeviceError`.

        `model` has the name of its `file`, the `path` of that on this machine, and the descriptions of its `inputs`.
        """
        runs = self._runs(visit_s, last_median_ns)
        try:
            return _summary(self._timing(model, runs))
        except TimeoutError:
            return {"error": f"no answer within {self.settings.op_timeout_s:g} s", "cause": "timeout"}
        except ValueError as error:
            return {"error": str(error), "cause": "exception"}

    def _runs(self, visit_s: float, last_median_ns: float | None) -> int:
        """How many runs fill the time of a visit, as far as their time is known."""
        least, most = self.settings.min_visit_samples, self.settings.max_visit_samples
        return least if last_median_ns is None else max(least, min(most, int(visit_s * 1e9 / last_median_ns)))

    def _timing(self, model: Mapping[str, Any], runs: int) -> Timing:
        """Of one call, or of a second: a phone short of memory kills programs, and command lines can be damaged."""
        delegate = None if self.settings.provider == DEFAULT else self.settings.provider
        program = [f"{self.folder}/{self.program}"]
        inputs: Sequence[Input] = model["inputs"]
        graph = f"{self.folder}/{_unpacked(model['file'])}"
        program += arguments(graph, runs=runs, threads=self.settings.threads, delegate=delegate)
        program += input_options(inputs, self.folder)
        words = [*_pinned(self.cores), *program] if self.cores else program

        def timing(command: Sequence[str]) -> Timing:
            output = self._output(command, delegate)
            found = parse(output, runs=runs, delegate=delegate)
            notes = check_inputs(lines_of(output), inputs, lambda: _read(Path(model["path"])))
            return dataclasses.replace(found, notes=(*found.notes, *notes))

        try:
            return timing(words)
        except _NotPinned as error:  # a core was switched off meanwhile
            found = timing(program)
            return dataclasses.replace(found, notes=(*found.notes, f"not pinned to its cores: {error}"))
        except ValueError:
            return timing(words)

    def _output(self, words: Sequence[str], delegate: str | None) -> str:
        """All that a program writes. Raises `TimeoutError` if it runs for too long, `ValueError` if it fails."""
        running = self.shell.spawn(words)
        deadline = time.monotonic() + self.settings.op_timeout_s
        text = bytearray()
        try:
            running.process.close_input()
            while data := running.output.read(1 << 16, max(0.01, deadline - time.monotonic())):
                text += data
                if len(text) > MAX_OUTPUT:
                    break
            code = running.process.wait() if len(text) <= MAX_OUTPUT else 0
            output = text.decode("utf-8", "replace") + "\n" + running.process.last_words()
        except TransientDeviceError:
            if time.monotonic() < deadline:
                raise
            running.process.close()
            self.shell.run(["true"])  # raises if the link is silent and not the program
            raise TimeoutError from None
        finally:
            running.process.close()
        if code != 0:
            said = why_failed(lines_of(output), delegate) or one_line(output)
            kind = _NotPinned if said.startswith("taskset: ") else ValueError
            raise kind(f"benchmark_model ended with exit code {code}" + (f": {said}" if said else ""))
        return output


class _NotPinned(ValueError):
    """The program was not started, because it cannot run on the given cores."""


def _summary(timing: Timing) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "samples_ns": [max(1, round(timing.typical_us * 1e3))],
        "runs": timing.runs.count,
        "load_ns": timing.init_us * 1000,
        "warmup_ns": round(timing.warm_up.mean_us * timing.warm_up.count * 1e3),
        "warmup_runs": timing.warm_up.count,
        "statistics": dataclasses.asdict(timing.runs),
        "delegates": list(timing.delegates),
    }
    if timing.notes:
        fields["notes"] = list(timing.notes)
    return fields


def _batches(files: Mapping[str, Path | bytes]) -> Iterator[dict[str, Path | bytes]]:
    """In batches of about `_BATCH` bytes: after a cut, those that have arrived are not sent again."""
    batch: dict[str, Path | bytes] = {}
    size = 0
    for name, content in files.items():
        length = len(content) if isinstance(content, bytes) else content.stat().st_size
        if batch and size + length > _BATCH:
            yield batch
            batch, size = {}, 0
        batch[name] = content
        size += length
    if batch:
        yield batch


def _unpacked(name: str) -> str:
    """The name of a model on the phone. The program cannot read compressed files."""
    return name.removesuffix(".gz")


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _packed(files: Mapping[str, Path | bytes]) -> bytes:
    """A compressed tar."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files.items():
            data = content if isinstance(content, bytes) else _read(content)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
