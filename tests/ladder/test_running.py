"""The runtime of a ladder, with an injected clock and sessions that take the time of a made-up load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.ladder import Ladder, LadderFile, Rung, Session
from ofa_search.ladder.sessions import Array

MS = (4.0, 9.0, 20.0)


class Machine:
    """A clock, and a load that slows down what runs."""

    def __init__(self) -> None:
        self.now_ns, self.load = 0, 1.0

    def clock(self) -> int:
        return self.now_ns


class FakeSession(Session):
    """Takes milliseconds of a machine, and gives its number."""

    def __init__(self, machine: Machine, number: int, ms: float) -> None:
        self.machine, self.number, self.ms, self.runs = machine, number, ms, 0
        self.shape = (1, 3, 8 * (number + 1), 8 * (number + 1))

    def run(self, image: Array) -> Array:
        assert image.shape == self.shape
        self.runs += 1
        self.machine.now_ns += round(1e6 * self.ms * self.machine.load)
        return np.full((1, 2), self.number, np.float32)


def rung(number: int, ms: float) -> Rung:
    return Rung(number, ms, 0.7 + number / 100, 0.7 + number / 100, ms, 8 * (number + 1), {})


def ladder_of(machine: Machine, target_ms: float, *, warm_up: int = 0, factor: float = 1.0) -> Ladder:
    """Rungs that are expected to take `MS`, and take `factor` times as long."""
    sessions = [FakeSession(machine, number, factor * ms) for number, ms in enumerate(MS)]
    rungs = [rung(number, ms) for number, ms in enumerate(MS)]
    return Ladder(rungs, sessions, target_ms, warm_up=warm_up, clock=machine.clock)


def frames(ladder: Ladder, count: int) -> list[int]:
    """Serve frames -> the rung of each; all that is said of a frame must agree."""
    served = []
    for _ in range(count):
        before = ladder.rung
        frame = ladder.run(np.zeros(ladder.shape, np.float32))
        assert frame.rung is before
        assert frame.outputs.tolist() == [[before.number] * 2]
        assert frame.kept == (frame.ms <= ladder.target_ms)
        served.append(frame.rung.number)
    return served


def test_a_load_that_comes_and_goes() -> None:
    machine = Machine()
    ladder = ladder_of(machine, 22.0)
    assert set(frames(ladder, 30)) == {2}
    machine.load = 2.0
    assert frames(ladder, 30) == [2] * 3 + [1] * 27
    assert ladder.slowdown == pytest.approx(2.0)
    machine.load = 5.0  # not even the middle one
    assert frames(ladder, 30)[3:] == [0] * 27
    machine.load = 1.0
    assert frames(ladder, 60)[-1] == 2


@given(st.lists(st.tuples(st.floats(0.2, 10), st.integers(1, 60)), max_size=6), st.floats(1, 60))
def test_after_any_load_the_target_is_kept_again(phases: list[tuple[float, int]], target_ms: float) -> None:
    """However it went before: some frames after the last change, each frame keeps the target that any rung can."""
    machine = Machine()
    ladder = ladder_of(machine, target_ms)
    for machine.load, count in phases:
        frames(ladder, count)
    possible = MS[0] * machine.load <= target_ms * 0.999
    frames(ladder, 3 * len(MS))
    for _ in range(40):
        frame = ladder.run(np.zeros(ladder.shape, np.float32))
        assert frame.kept or not possible


def test_nothing_is_loaded_or_run_beside_the_rung_that_serves() -> None:
    machine = Machine()
    ladder = ladder_of(machine, 22.0)
    frames(ladder, 10)
    assert [session.runs for session in ladder.sessions if isinstance(session, FakeSession)] == [0, 0, 10]


def test_networks_that_differ_from_their_expectation_are_measured_first() -> None:
    machine = Machine()
    ladder = ladder_of(machine, 22.0, warm_up=3, factor=1.5)
    assert [each.expected_ms for each in ladder.rungs] == pytest.approx([1.5 * ms for ms in MS])
    assert set(frames(ladder, 100)) == {1}
    assert ladder.slowdown == pytest.approx(1.0)


def test_a_frame_of_another_resolution_is_refused() -> None:
    ladder = ladder_of(Machine(), 22.0)
    with pytest.raises(UsageError, match=r"rung 2 takes an input of shape \(1, 3, 24, 24\), not \(1, 3, 8, 8\)"):
        ladder.run(np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(UsageError, match=r"rung 2 takes an input of shape \(1, 3, 24, 24\), not str; prepare"):
        ladder.run("x.png")  # type: ignore[arg-type]


def test_each_rung_needs_a_session() -> None:
    with pytest.raises(UsageError, match="1 rungs, 0 sessions"):
        Ladder([rung(0, 1.0)], [], 10.0)


# --- the file ------------------------------------------------------------------------------------------


def saved(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    rungs = [
        Rung(number, ms, None, 1e6 * ms, 5.0 * ms, 32, {"onnx": folder / f"{number}.onnx"})
        for number, ms in enumerate(MS)
    ]
    ladder = LadderFile("cifar-mbv3", "fp32", "board", "onnxruntime", None, 1, rungs, {"mean": [0.5]}, ["cat", "dog"])
    document = ladder.to_json(folder)
    change(document)
    path = folder / "ladder.json"
    path.write_text(json.dumps(document))
    return path


def test_the_file_reads_as_written_also_in_another_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    moved = saved(tmp_path / "a").parent.rename(tmp_path / "b")
    found = LadderFile.load(moved)
    assert [each.files["onnx"] for each in found.rungs] == [moved / f"{number}.onnx" for number in range(3)]
    assert [(each.expected_ms, each.accuracy, each.resolution) for each in found.rungs] == [(ms, None, 32) for ms in MS]
    assert found == LadderFile.load(moved / "ladder.json")
    assert (found.labels, found.preprocessing) == (["cat", "dog"], {"mean": [0.5]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format=9), "its format is 9"),
        (lambda d: d.pop("rungs"), "'rungs' is missing"),
        (lambda d: d["rungs"].clear(), "no rungs"),
        (lambda d: d["rungs"].reverse(), "rung 1 is not slower and better than rung 0"),
        (lambda d: d["rungs"][0].update(expected_ms=0), "expected_ms must be above zero"),
        (lambda d: d["rungs"][0].update(score="good"), "not a ladder"),
        (lambda d: d.update(rungs=3), "not a ladder"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = saved(tmp_path, change)
    with pytest.raises(InputFileError, match=words) as caught:
        LadderFile.load(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="ofa-search --ladder writes it"):
        Ladder.load(tmp_path / "nothing", 10.0)
    path = saved(tmp_path)
    with pytest.raises(InputFileError, match=r"0\.onnx: onnxruntime cannot load it"):
        Ladder.load(path, 10.0)
    with pytest.raises(InputFileError, match=r"rung 0 has no model of the kind tflite.*--no-export"):
        Ladder.load(path, 10.0, runtime="litert")
    with pytest.raises(UsageError, match="choose from onnxruntime, litert"):
        Ladder.load(path, 10.0, runtime="tensorrt")


def test_it_needs_numpy_alone() -> None:
    """And the runtime, once models are loaded."""
    code = "import sys, ofa_search.ladder; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    theirs = set(done.stdout.split()) - set(sys.stdlib_module_names) - {"ofa_search", "ofa_profiler", "numpy"}
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*{name.split('.')[0] for name in sys.modules})"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert theirs <= set(bare.stdout.split())
