"""Measures the models of a kit with Google's `benchmark_model`, one call per visit: no Python on the phone.

What the agent does on other devices is done from here: the order of the visits, when a median is known well
enough, and the same records. The tool prints statistics and no samples, so a visit has one sample, the
median of its runs (their mean in older versions of the tool); `statistics` in the record keeps the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import math
import random
import secrets
import statistics
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.devices.android.benchmark_model import DELEGATES, MAX_OUTPUT, Timing, arguments, parse
from ofa_profiler.devices.android.facts import fastest_cores, now, phone_identity, phone_state, read_facts
from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.errors import DeviceError, InputFileError, TransientDeviceError, UsageError
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import RESULTS_FILE
from ofa_profiler.protocol.records import Device, End, Record, Visit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings

#: Whichever delegate the program takes by itself: XNNPACK, in all but old ones.
_DEFAULT = "default"
#: 97.5% quantiles of Student's t distribution for 1, 2, ... degrees of freedom, as in the agent.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
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


@dataclass(frozen=True)
class BenchmarkRunner:
    """One kit on one phone. `program` is Google's binary for the phone, on this machine."""

    shell: Shell
    root: str
    program: Path
    kit: Path
    cores: tuple[int, ...] | None = None
    #: What was done to the state of the phone.
    state: Mapping[str, bool] = dataclasses.field(default_factory=dict)

    def records(self) -> Iterator[Record]:
        """Measure what the kit's results lack -> the records that the agent would write.

        Raises `DeviceError`, or its transient kind; `InputFileError` if the program cannot be read; `UsageError`
        for a kit of another runtime or with a delegate that the program has not.
        """
        replay, _ = read_journal(self.kit / RESULTS_FILE)
        manifest = json.loads((self.kit / "manifest.json").read_text("utf-8"))
        settings = Settings.from_json(manifest["settings"])
        check_settings(settings.target.runtime, settings.provider)
        models = {entry["key"]: entry for entry in manifest["models"]}
        program = self._bring(models)
        facts = read_facts(self.shell)
        cores = self.cores or fastest_cores(facts, settings.threads)
        device = Device.from_json(_device(facts, cores, program, settings, self.state))
        replay.add(device)
        yield device
        for key in _due(replay, settings):
            visit = Visit.from_json(self._visit(program, models[key], replay, settings, cores))
            replay.add(visit)
            yield visit
        yield End.from_json(_end(replay, settings, phone_state(read_facts(self.shell), cores)))

    def _bring(self, models: Mapping[str, Any]) -> str:
        """Make sure that program and models are there, whole -> the program's name there."""
        try:
            program = self.program.read_bytes()
        except OSError as error:
            raise InputFileError(self.program, error.strerror or str(error)) from error
        name = f"benchmark_model-{hashlib.sha256(program).hexdigest()}"
        wanted: dict[str, Path | bytes] = {name: program}
        wanted |= {entry["file"]: self.kit / "models" / entry["file"] for entry in models.values()}
        hashes = {entry["file"]: entry["sha256"] for entry in models.values()} | {name: name.rpartition("-")[2]}
        listed = self.shell.run(["sh", "-c", _HAVE, "sh", self._folder]).stdout.decode("utf-8", "replace")
        there = {line[66:]: line[:64] for line in listed.splitlines() if line[64:66] == "  "}
        missing = {file: content for file, content in wanted.items() if there.get(file) != hashes[file]}
        for some in _batches(missing):
            sums = "".join(f"{hashes[file]}  {file}\n" for file in some).encode()
            words = ["sh", "-c", _TAKE, "sh", self._folder, f".incoming-{secrets.token_hex(8)}"]
            done = self.shell.run(words, _packed({**some, "SHA256SUMS": sums}))
            if done.exit_code != 0:
                problem = one_line(done.stderr)
                kind = DeviceError if "No space left" in problem else TransientDeviceError
                raise kind(f"{self.shell.spec}: models could not be put on the phone: {problem or done.exit_code}")
        return name

    @property
    def _folder(self) -> str:
        return f"{self.root}/benchmark_model"

    def _visit(
        self, program: str, entry: Any, replay: Replay, settings: Settings, cores: tuple[int, ...] | None
    ) -> dict[str, Any]:
        key, before = entry["key"], replay.visits[entry["key"]]
        delegate = None if settings.provider == _DEFAULT else settings.provider
        record: dict[str, Any] = {"type": "visit", "key": key, "round": len(before), "status": "ok"}
        runs = _runs(before, settings)
        words = [f"{self._folder}/{program}"]
        words += arguments(f"{self._folder}/{entry['file']}", runs=runs, threads=settings.threads, delegate=delegate)
        if cores:
            words = ["taskset", f"{sum(1 << core for core in cores):x}", *words]
        begin = time.monotonic()
        try:
            timing = self._timing(words, settings.op_timeout_s, runs, delegate)
            record.update(_seen(timing, [visit.samples_ns[0] for visit in before]))
        except TimeoutError:
            record.update(status="failed", cause="timeout", error=f"no answer within {settings.op_timeout_s:g} s")
        except ValueError as error:
            record.update(status="failed", cause="exception", error=str(error))
        record["seconds"] = round(time.monotonic() - begin, 6)
        return record

    def _timing(self, words: list[str], timeout_s: float, runs: int, delegate: str | None) -> Timing:
        """Of one call, or of a second: phones short of memory kill programs, and nothing guards a command line."""
        with contextlib.suppress(ValueError):
            return parse(self._output(words, timeout_s), runs=runs, delegate=delegate)
        return parse(self._output(words, timeout_s), runs=runs, delegate=delegate)

    def _output(self, words: list[str], timeout_s: float) -> str:
        """All that a program writes. Raises `TimeoutError` if it runs for longer, `ValueError` if it fails."""
        running = self.shell.spawn(words)
        deadline = time.monotonic() + timeout_s
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
            self.shell.run(["true"])  # raises, if it is the link that is silent and not the program
            raise TimeoutError from None
        finally:
            running.process.close()
        if code != 0:
            said = one_line(output)
            raise ValueError(f"benchmark_model ended with exit code {code}" + (f": {said}" if said else ""))
        return output


def check_settings(runtime: str, provider: str | None) -> None:
    """Raise `UsageError` unless benchmark_model can run models like that."""
    if runtime != "litert":
        raise UsageError(f"--benchmark-model runs TFLite models: it goes with --runtime litert, not with {runtime}")
    if provider not in (None, _DEFAULT, *DELEGATES):
        known = ", ".join(DELEGATES)
        raise UsageError(f"benchmark_model has no delegate {provider!r:.100}; --provider takes {known} with it")


def _device(
    facts: Mapping[str, str], cores: tuple[int, ...] | None, program: str, settings: Settings, state: Mapping[str, bool]
) -> dict[str, Any]:
    """A record of type `device`, as the agent writes it."""
    governor = facts.get(f"governor.{cores[0]}") if cores else None
    before = phone_state(facts, cores)
    notes = [] if cores else ["the process could not be pinned to its cores"]
    if not state.get("fixed_performance_mode") and governor != "performance":
        notes.append(f"the governor is {governor or 'unknown'}, not performance: clocks may change")
    if before["temperature_c"] is None:
        notes.append("no temperature can be read")
    version = f"benchmark_model {program.rpartition('-')[2][:16]}"  # the program does not tell its own
    return {
        **phone_identity(facts),
        "cores_used": list(cores) if cores else None,
        "governor": governor,
        "before": before,
        "runtime": {"name": "litert", "version": version, "provider": settings.provider or _DEFAULT},
        "uncontrolled": notes,
        **state,
    }


def _due(replay: Replay, settings: Settings) -> Iterator[str]:
    """Keys to be visited: in rounds, shuffled anew in each, until all are known well enough or time is up."""
    while wanting := [key for key, visits in replay.visits.items() if _wants_visit(visits, settings)]:
        rounds = min(len(replay.visits[key]) for key in wanting)
        batch = [key for key in wanting if len(replay.visits[key]) == rounds]
        random.Random(f"{settings.seed}:{rounds}").shuffle(batch)
        for key in batch:
            used_s = sum(visit.seconds for visits in replay.visits.values() for visit in visits)
            if rounds and settings.time_limit_s is not None and used_s >= settings.time_limit_s:
                return
            yield key


def _is_tight(visits: list[Visit], settings: Settings) -> bool:
    width = visits[-1].half_width if visits else None
    return width is not None and width <= settings.target_half_width


def _wants_visit(visits: list[Visit], settings: Settings) -> bool:
    if len(visits) >= settings.max_rounds or (visits and not visits[-1].ok):
        return False
    return len(visits) < settings.min_rounds or not _is_tight(visits, settings)


def _runs(before: list[Visit], settings: Settings) -> int:
    """How many runs fill the time of a visit, as far as their time is known."""
    if not before:
        return settings.min_visit_samples
    runs = int(settings.visit_s * 1e9 / before[-1].samples_ns[0])
    return max(settings.min_visit_samples, min(settings.max_visit_samples, runs))


def _seen(timing: Timing, samples_before: list[int]) -> dict[str, Any]:
    sample = max(1, round(timing.typical_us * 1e3))
    return {
        "samples_ns": [sample],
        "runs": timing.runs.count,
        "load_ns": timing.init_us * 1000,
        "warmup_ns": round(timing.warm_up.mean_us * timing.warm_up.count * 1e3),
        "warmup_runs": timing.warm_up.count,
        "half_width": half_width([*samples_before, sample]),
        "statistics": dataclasses.asdict(timing.runs),
        "delegates": list(timing.delegates),
    }


def half_width(medians: Sequence[int]) -> float | None:
    """Half of the 95% confidence interval of what visits vary around, relative to it; None for one visit."""
    if len(medians) < 2:
        return None
    spread = statistics.stdev(medians) / math.sqrt(len(medians))
    return spread * _T_975[min(len(medians) - 1, len(_T_975)) - 1] / statistics.mean(medians)


def _end(replay: Replay, settings: Settings, after: dict[str, Any]) -> dict[str, Any]:
    visited = {key: visits for key, visits in replay.visits.items() if not visits or visits[-1].ok}
    unsure = [key for key, visits in visited.items() if not _is_tight(visits, settings)]
    return {
        "type": "end",
        "time": now(),
        "time_limit_s": settings.time_limit_s,
        "cut_short": [key for key in unsure if _wants_visit(replay.visits[key], settings)],
        "noisy": [key for key in unsure if not _wants_visit(replay.visits[key], settings)],
        "after": after,
    }


def _batches(files: Mapping[str, Path | bytes]) -> Iterator[dict[str, Path | bytes]]:
    """In batches of about `_BATCH` bytes: those that arrived need not come again after a cut."""
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


def _packed(files: Mapping[str, Path | bytes]) -> bytes:
    """A compressed tar."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
