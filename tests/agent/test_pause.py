"""An agent that pauses after some visits, and goes on with the next start as after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.kits import QUICK, bytes_model, make_kit, records, run_agent, stub_runtime

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.errors import TransientDeviceError
from ofa_profiler.protocol.settings import Settings

MODELS = ("a", "b", "c")
FOUR_ROUNDS = replace(QUICK, min_rounds=4, max_rounds=4)


def turn(folder: Path, settings: Settings, *arguments: str) -> tuple[list[str], list[str]]:
    """Start the agent -> the types of the records on stdout and in the file."""
    kit = folder / "kit"
    if not kit.exists():
        make_kit(kit, [bytes_model(folder, key, f"run {key}".encode()) for key in MODELS], settings)
    done = run_agent(kit, *arguments, env=stub_runtime(folder / "stub"))
    assert done.returncode == 0, done.stderr
    kept = records((kit / "results.jsonl").read_text())
    return [r["type"] for r in records(done.stdout)], [r["type"] for r in kept]


def test_a_pause_is_at_the_end_of_a_round_and_only_the_host_hears_of_it(tmp_path):
    said, kept = turn(tmp_path, FOUR_ROUNDS, "--pause-after", "4")
    assert said[-1] == "paused"
    assert "paused" not in kept
    # Other programs can disturb a visit: then it is repeated, and counts for the pause, but not for the table.
    visits, disturbed = kept.count("visit"), kept.count("disturbed")
    assert visits % len(MODELS) == 0, "whole rounds"
    assert visits == 6 if not disturbed else visits + disturbed >= 4
    said, kept = turn(tmp_path, FOUR_ROUNDS, "--pause-after", "3")
    assert (said[-1], kept.count("visit")) == ("paused", visits + 3)
    said, kept = turn(tmp_path, FOUR_ROUNDS, "--pause-after", "100")
    assert (said[-1], kept[-1], kept.count("visit")) == ("end", "end", 12)
    assert kept.count("device") == 3


def test_the_visits_before_a_pause_get_their_reference(tmp_path):
    """The device may be another one after the pause, which would void them."""
    watched = replace(FOUR_ROUNDS, reference_every_s=60.0, drift_tolerance=10.0)
    _, kept = turn(tmp_path, watched, "--pause-after", "6")
    assert kept[-1] == "reference"
    _, kept = turn(tmp_path, watched)
    assert kept[kept.index("device", 3) :][:2] == ["device", "reference"], "and the next start begins with one"


class Recorded(Device):
    """A device whose agent says these records."""

    spec = "recorded"
    waits_s = ()

    def __init__(self, *said: bytes) -> None:
        self.said = said

    def start(self, kit: Path | None, arguments: Any) -> Agent:
        lines = iter(self.said)

        class Said(Agent):
            def read_line(self, limit: int) -> bytes:
                return next(lines, b"")

            def finish(self) -> tuple[str, str]:
                return "exit code 0", ""

            def close(self) -> None:
                pass

        return Said()


@pytest.mark.parametrize("visits", [None, 3])
def test_a_pause_that_nobody_asked_for_or_without_a_visit_is_an_early_end(visits, tmp_path):
    """Else a device could keep its host waiting for ever."""
    with pytest.raises(TransientDeviceError, match="ended before it was finished"):
        list(Recorded(b'{"type": "paused"}\n').measure_kit(tmp_path, 0, visits))
