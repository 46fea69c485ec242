"""Schedules: what the files may say, and what they mean."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import get_space, space_names
from ofa_search.training.schedule import KINDS, Phase, Schedule, load_schedule, schedule_names

GOOD = {"name": "all", "share": 1.0, "largest": True}


def write(path: Path, data: object) -> str:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return str(path)


def test_the_schedules_that_ship() -> None:
    assert schedule_names() == ["cifar-cpu", "deps", "progressive", "sandwich"]
    for name in schedule_names():
        schedule = load_schedule(name)
        assert schedule.name == name
        assert sum(phase.share for phase in schedule.phases) == pytest.approx(1)
        assert schedule.phases[-1].learning_rate[1] == 0


def test_the_kinds_are_those_of_the_spaces() -> None:
    genes = {gene.kind for name in space_names() for gene in get_space(name).genes}
    assert genes - {"resolution"} == set(KINDS)


def phase(**changes: object) -> dict[str, object]:
    return {"epochs": 3, "phases": [GOOD | changes]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("phases: [", "cannot be read as YAML"),
        ("a: &a [*a, {b: !!python/object:os.system x}]", "cannot be read as YAML"),
        ([1], "a schedule has `epochs` and a list of `phases`"),
        ({"epochs": 3}, "a schedule has `epochs` and a list of `phases`"),
        ({"epochs": 3, "phases": {}}, "a schedule has `epochs` and a list of `phases`"),
        ({"epochs": 0, "phases": [GOOD]}, "epochs is too small: 0"),
        ({"epochs": float("nan"), "phases": [GOOD]}, "epochs is not a number below a million: nan"),
        ({"epochs": 10**400, "phases": [GOOD]}, "epochs is not a number below a million: 1000"),
        ({"epochs": "3", "phases": [GOOD]}, "epochs is not a number"),
        ({"epochs": 3, "phases": []}, "do not add up to 1"),
        ({"epochs": 3, "phases": [3]}, "phase 1: needs at least a name and a share"),
        ({"epochs": 3, "phases": [GOOD | {"share": 0.5}]}, "do not add up to 1"),
        ({"epochs": 3, "phases": [GOOD, GOOD | {"share": -1}]}, "phase 2: share is too small: -1"),
        (phase(name=3), "phase 1: name is a word, not 3"),
        (phase(larget=True), "phase 1: 'larget' is not one of labels, largest"),
        (phase(largest=1), "phase 1: largest is true or false, not 1"),
        (phase(largest=False), "phase 1: trains nothing"),
        (phase(random=-1), "phase 1: random: -1 is not a whole number from 0"),
        (phase(random=True), "phase 1: random: True is not a whole number"),
        (phase(random=10**9), "phase 1: random: 1000000000 is not a whole number from 0 to 4096"),
        (phase(teacher="best"), "phase 1: teacher is one of none, largest, full, not 'best'"),
        (phase(teacher="full"), "the first phase cannot have the teacher `full`"),
        (phase(teacher=["full"]), "phase 1: teacher is a word"),
        (phase(largest=False, random=1, teacher="largest"), "the teacher `largest` needs `largest: true`"),
        (phase(labels=-0.5), "phase 1: labels is too small"),
        (phase(learning_rate=0.1), "phase 1: learning_rate is a pair"),
        (phase(learning_rate=[1, 2, 3]), "phase 1: learning_rate is a pair"),
        (phase(subnet_rate=[1, -1]), "phase 1: subnet_rate is too small: -1"),
        (phase(resolutions=[]), "phase 1: resolutions is a list of whole numbers"),
        (phase(resolutions=[24, 1.5]), "phase 1: resolutions: 1.5 is not a whole number"),
        (phase(open=["depth"]), "phase 1: open is a mapping"),
        (phase(open={"kernal_size": 1}), "phase 1: open: 'kernal_size' is not one of kernel_size"),
        (phase(open={"depth": 0}), "phase 1: open: 0 is not a whole number from 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(data: object, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", data)
    with pytest.raises(InputFileError) as caught:
        load_schedule(path)
    assert str(caught.value).startswith(path)
    assert message in str(caught.value)


def test_a_schedule_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor one of cifar-cpu, deps, progressive, sandwich"):
        load_schedule("dep")
    with pytest.raises(InputFileError, match="cannot be read"):
        load_schedule(str(tmp_path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from([f.name for f in fields(Phase)]), value=VALUES)
def test_whatever_a_field_holds_it_is_read_or_refused(name: str, value: object, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump({"epochs": 1, "phases": [GOOD | {name: value}]}), encoding="utf-8")
    try:
        schedule = load_schedule(str(path))
    except InputFileError as error:
        assert str(path) in str(error)  # noqa: PT017 - refusing is one of two good outcomes
        return
    (read,) = schedule.phases
    subnets = read.subnets(get_space("cifar-mbv3"), np.random.default_rng(0)) if read.random < 50 else [None]
    assert subnets
    assert all(isinstance(rate, float) for rate in (*read.learning_rate, *read.subnet_rate))


@given(shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), progress=st.floats(0, 1, exclude_max=True))
def test_every_point_of_a_training_lies_in_one_phase(shares: list[float], progress: float) -> None:
    phases = tuple(Phase(str(i), share / sum(shares)) for i, share in enumerate(shares))
    schedule = Schedule("any", 1.0, phases)
    number, within = schedule.at(progress)
    begins = sum(p.share for p in phases[:number])
    assert 0 <= within <= 1
    assert begins + within * phases[number].share == pytest.approx(progress, abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), counts=st.fixed_dictionaries({kind: st.integers(1, 4) for kind in KINDS[:3]}))
def test_only_open_choices_are_drawn(seed: int, counts: dict[str, int]) -> None:
    space = get_space("cifar-mbv3")
    drawn = Phase("x", 1.0, open=counts, largest=True, smallest=True, random=3).subnets(
        space, np.random.default_rng(seed)
    )
    assert len(drawn) == 5
    assert drawn[0] == space.largest
    for architecture in drawn:
        for stage in architecture.stages:
            assert stage.depth in (4, 3, 2)[: counts["depth"]]
            assert set(stage.kernel_sizes) <= set((7, 5, 3)[: counts["kernel_size"]])
            assert set(stage.expand_ratios) <= set((6, 4, 3)[: counts["expand_ratio"]])
