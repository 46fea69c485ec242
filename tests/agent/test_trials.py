"""The trials of forms that the agent runs: what wins, what does not, and when they end."""

from __future__ import annotations

import random

import pytest

from device_agents.ofa_agent import trials
from device_agents.ofa_agent.kit import Kit
from device_agents.ofa_agent.trials import Repeating, choose_forms


class FakeKit(Kit):
    """A kit of models `a`, `b`, `c` with these trials, without a folder."""

    def __init__(self, asked, names=("split",)):
        self.folder, self.chosen, self.encoding = "", {}, None
        variants = [{"forms": {"group": name}, "file": name, "sha256": name} for name in names]
        self.profile, self.run = None, {"settings": {}}
        self.models = {key: {"key": key, "file": "plain", "inputs": [], "variants": variants} for key in "abc"}
        self.trials = asked


def asked(*names):
    return [{"forms": {"group": name}, "keys": list("abc")} for name in names]


def visits(times_ms, noise=0.001, failing=()):
    """A function that measures a model: `times_ms` by the name of its file."""
    rng = random.Random(0)
    log = []

    def visit(model):
        log.append((model["key"], model["file"]))
        if model["file"] in failing:
            return {"status": "failed", "error": f"{model['file']} is refused"}
        time_ns = times_ms[model["file"]] * 1e6 * (1 + rng.uniform(-noise, noise))
        return {"status": "ok", "samples_ns": [round(time_ns)] * 3}

    visit.log = log
    return visit


def choose(times_ms, names=("split",), **options):
    visit = visits(times_ms, **options)
    return choose_forms(FakeKit(asked(*names), names), visit, 0, 1000), visit.log


@pytest.mark.parametrize(("split_ms", "wins"), [(1.0, False), (0.5, True), (0.97, True), (0.995, False), (1.03, False)])
def test_what_is_faster_by_more_than_the_noise_wins(split_ms, wins):
    record, log = choose({"plain": 1.0, "split": split_ms})
    assert record["chosen"] == ({"group": "split"} if wins else {})
    (trial,) = record["trials"]
    assert trial["wins"] is wins
    assert trial["gain"] == pytest.approx(1 / split_ms, rel=0.01)
    assert len(log) == 6 * trial["rounds"]
    assert trial["rounds"] >= trials.MIN_ROUNDS
    assert {key for key, _ in log} == set("abc")


def test_noise_hides_a_small_gain():
    record, log = choose({"plain": 1.0, "split": 0.97}, noise=0.3)
    assert record["chosen"] == {}
    assert record["trials"][0]["half_width"] > 0.03
    assert len(log) == 6 * trials.MAX_ROUNDS  # it tried to find out


def test_plain_and_form_are_interleaved_and_neither_is_always_first():
    _, log = choose({"plain": 1.0, "split": 0.5})
    pairs = list(zip(log[::2], log[1::2], strict=True))
    assert all(one[0] == other[0] and {one[1], other[1]} == {"plain", "split"} for one, other in pairs)
    assert {one[1] for one, _ in pairs} == {"plain", "split"}


def test_a_form_that_does_not_run_loses():
    record, log = choose({"plain": 1.0, "split": 0.1}, failing=("split",))
    assert record["chosen"] == {}
    assert record["trials"][0]["error"] == "split is refused"
    assert len(log) == 6  # one round is enough


def test_a_form_wins_where_the_plain_form_does_not_run():
    record, _ = choose({"plain": 1.0, "split": 5.0}, failing=("plain",))
    assert record["chosen"] == {"group": "split"}
    assert "gain" not in record["trials"][0]


def test_nothing_is_chosen_where_nothing_runs():
    record, _ = choose({"plain": 1.0, "split": 5.0}, failing=("plain", "split"))
    assert record["chosen"] == {}


@pytest.mark.parametrize("order", [("split", "nines"), ("nines", "split")])
def test_the_faster_of_two_forms_is_chosen(order):
    record, _ = choose({"plain": 1.0, "split": 0.5, "nines": 0.4}, names=order)
    assert record["chosen"] == {"group": "nines"}


def test_several_groups_can_be_decided_as_one_set():
    kit = FakeKit([{"forms": {"group": "split", "other": "wide"}, "keys": ["a"]}])
    kit.models["a"]["variants"] = [
        {"forms": {"group": "split", "other": "wide"}, "file": "fast", "sha256": ""},
        {"forms": {"group": "split"}, "file": "half", "sha256": ""},
    ]
    visit = visits({"plain": 1.0, "fast": 0.5, "half": 9.0})
    record = choose_forms(kit, visit, 0, 1000)
    assert record["chosen"] == {"group": "split", "other": "wide"}
    assert {file for _, file in visit.log} == {"plain", "fast"}


def test_a_model_is_requested_in_the_forms_of_its_own_groups():
    kit = FakeKit([])
    kit.chosen = {"group": "split", "of another model": "wide"}
    assert kit.request("a")["file"] == "split"
    kit.chosen = {"of another model": "wide"}
    assert kit.request("a")["file"] == "plain"


def test_a_slow_board_stops_after_its_share_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(trials.time, "monotonic", lambda: clock[0])
    visit = visits({"plain": 1.0, "split": 0.99}, noise=0.5)

    def slow(model):
        clock[0] += 2.0
        return visit(model)

    record = choose_forms(FakeKit(asked("split")), slow, 0, 60)  # 60 visits of 2 s: 10% are 12 s, so 15 s count
    assert record["trials"][0]["rounds"] == 2
    assert record["seconds"] == 24.0
    assert record["chosen"] == {}


def test_the_same_seed_gives_the_same_order():
    assert choose({"plain": 1.0, "split": 0.5})[1] == choose({"plain": 1.0, "split": 0.5})[1]


def busy(visit, when, seconds=0.05):
    """Like `visit`, but other programs make a visit 1.5 times slower `when` they run in it. The kernel counts that."""
    log = []

    def disturbed(model):
        record, is_busy = visit(model), when(len(log))
        log.append(is_busy)
        waited_ns = 20 if is_busy else 0
        slow = {"samples_ns": [round(ns * (1.5 if is_busy else 1)) for ns in record["samples_ns"]]}
        counted = {"wall_ns": 60, "waited_ns": waited_ns, "involuntary": 3 if is_busy else 0}
        return {**record, **slow, **counted, "seconds": seconds}

    disturbed.log = log
    return disturbed


def choose_on_a_busy_machine(when, repeating=True, seconds=0.05):
    visit = busy(visits({"plain": 1.0, "split": 0.9}), when, seconds)
    undisturbed = Repeating(visit, threads=1)
    record = choose_forms(FakeKit(asked("split")), undisturbed if repeating else visit, 0, 1000)
    return record["trials"][0], undisturbed, visit.log


def test_a_disturbed_visit_is_repeated():
    trial, undisturbed, log = choose_on_a_busy_machine(lambda n: n % 5 == 0)
    assert trial["wins"]
    assert trial["gain"] == pytest.approx(1 / 0.9, rel=0.01)
    assert undisturbed.repeated == sum(log) > 0
    assert len(log) == 6 * trial["rounds"] + undisturbed.repeated
    # Without this, the visits that were disturbed decide.
    assert choose_on_a_busy_machine(lambda n: n % 5 == 0, repeating=False)[0]["half_width"] > 0.05


def test_a_machine_that_is_always_busy_is_tried_all_the_same():
    trial, undisturbed, log = choose_on_a_busy_machine(lambda _: True, seconds=0.5)
    assert trial["wins"]  # everything was slower by the same factor
    assert undisturbed.repeated == 6  # a fifth of 15 s
    assert len(log) == 6 * trial["rounds"] + 6


def test_a_visit_that_failed_is_not_repeated():
    record = {"status": "failed", "error": "no", "seconds": 0.1}
    log = []
    assert Repeating(lambda model: log.append(model) or record, 2)("a") is record
    assert log == ["a"]
