"""What a training costs, by which its remaining time is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.training import made_images

from ofa_profiler import get_space
from ofa_profiler.base.progress import Progress
from ofa_search.data.images import DataSplit
from ofa_search.evaluation.world import join_world
from ofa_search.training import loop as run
from ofa_search.training.cost import macs_per_image, part_done, phase_macs
from ofa_search.training.schedule import Phase, Schedule, load_schedule, schedule_names
from ofa_search.training.supernet_trainer import SupernetTrainer
from ofa_search.training.trainer import TrainingOptions

SPACE = get_space("cifar-mbv3")


def test_a_step_forward_and_backward_counts_three_times_a_pass():
    largest = Phase("a", 1.0, resolutions=(32,), largest=True)
    assert phase_macs(SPACE, largest) == pytest.approx(3 * SPACE.macs(SPACE.largest))
    both = Phase("a", 1.0, resolutions=(24,), largest=True, smallest=True, teacher="full")
    own = SPACE.macs(SPACE.largest) * (24 / 32) ** 2
    assert phase_macs(SPACE, both) == pytest.approx(4 * own + 3 * SPACE.macs(SPACE.smallest))


def test_few_draws_tell_nearly_what_many_do():
    phase = Phase("a", 1.0, largest=True, smallest=True, random=2)
    assert phase_macs(SPACE, phase) == pytest.approx(phase_macs(SPACE, phase, 300), rel=0.1)


@pytest.mark.parametrize("name", schedule_names())
def test_the_cost_of_a_schedule_lies_between_those_of_its_phases(name):
    schedule = load_schedule(name)
    costs = [phase_macs(SPACE, phase, 300) for phase in schedule.phases]
    assert min(costs) <= macs_per_image(SPACE, schedule) * (1 + 1e-9)
    assert macs_per_image(SPACE, schedule) <= max(costs) * (1 + 1e-9)


PHASES = st.lists(st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 100.0)), min_size=1, max_size=6)


@given(PHASES, st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2).map(sorted))
def test_the_part_done_grows_from_nothing_to_all(drawn, progress):
    total = sum(share for share, _ in drawn)
    schedule = Schedule("any", 1.0, tuple(Phase(str(i), share / total) for i, (share, _) in enumerate(drawn)))
    costs = [cost for _, cost in drawn]
    parts = [part_done(schedule, costs, at) for at in (0.0, *progress, 1.0)]
    assert parts[0] == 0
    assert parts[-1] == pytest.approx(1)
    assert parts == sorted(parts)


def test_a_phase_that_costs_more_takes_more():
    schedule = Schedule("any", 1.0, (Phase("a", 0.5), Phase("b", 0.5)))
    assert part_done(schedule, [1.0, 3.0], 0.5) == pytest.approx(0.25)
    assert part_done(schedule, [1.0, 3.0], 0.75) == pytest.approx(0.625)


def test_the_time_that_is_told_knows_that_later_steps_take_longer(tmp_path, monkeypatch):
    """A clock that goes on by what each step costs: then what is told is exactly what is left."""
    clock = [0.0]
    ends: list[tuple[float, float]] = []

    class Clocked(SupernetTrainer):
        def run_step(self) -> dict[str, float]:
            clock[0] += self.cost(self.schedule.phases[self.schedule.at(self.step / self.steps)[0]])
            self.step += 1
            return {"loss": 1.0, "first_loss": 1.0, "learning_rate": 1.0}

    def tell(report: Progress) -> None:
        if report.left_s is not None:
            ends.append((clock[0], clock[0] + report.left_s))

    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])
    phases = Phase("small", 0.5, resolutions=(24,), smallest=True), Phase("large", 0.5, resolutions=(32,), largest=True)
    training, held_out = made_images(72).split(8)
    options = TrainingOptions(epochs=10, batch=16)
    with join_world("cpu") as world:
        space = SPACE.with_classes(3)
        trainer = Clocked(space, Schedule("two", 1.0, phases), options, training, world)
        assert trainer.steps == 40
        run.run_training(trainer, DataSplit(training, held_out), tmp_path, fresh=False, progress=tell)
    assert clock[0] > 4 * 40 * trainer.cost(phases[0])
    assert len(ends) == 31
    assert [end for _, end in ends] == pytest.approx([clock[0]] * 31)
