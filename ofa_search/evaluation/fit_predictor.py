"""Trains the accuracy predictor of a supernet: draw architectures, measure them, fit, and measure the errors.

That of networks in mixed precision is transferred from the predictor of fp32 (`predictor/transfer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.data.images import Images
from ofa_search.evaluation.measured import Measured, accuracy_of, digest, digest_of
from ofa_search.evaluation.mixed_subnets import MixedEvaluator
from ofa_search.evaluation.samples import Sample, SampleFolder, draw_architectures, is_drawn_evenly
from ofa_search.evaluation.subnets import Evaluator
from ofa_search.evaluation.world import World
from ofa_search.predictor import AccuracyPredictor, Metrics, metrics
from ofa_search.predictor.fit import MIN_SAMPLES
from ofa_search.supernet.supernet import Supernet, TrainedSupernet

PREDICTOR, SAMPLES, TEST = "predictor.safetensors", "samples", "test"
#: The default fraction of the samples that is held out to measure the errors of the predictor.
HELD_OUT_SHARE = 0.2
#: The number of subnets that are also measured on the test images. The offset between two sets of images is
#: almost the same for all subnets, so few are enough.
TESTED = 8


@dataclass(frozen=True)
class PredictorOptions:
    """The number of architectures to draw by `seed`, how many of them are held out, and whether to start over."""

    samples: int
    held_out_samples: int | None = None
    seed: int = 0
    fresh: bool = False

    @property
    def judged_by(self) -> int:
        """The number of held-out samples."""
        return self.held_out_samples or round(HELD_OUT_SHARE * self.samples)


@dataclass(frozen=True)
class Offset:
    """The mean difference of accuracy between `images` test images and the held-out ones, over `subnets`, and its
    standard deviation. Fractions.
    """

    mean: float
    deviation: float
    subnets: int
    images: int


@dataclass(frozen=True)
class Fitted:
    """The result: `predictor.metrics` are the errors on held-out samples of all kinds, `even` those on the samples
    whose choices were drawn evenly, if there are any. `before` are the errors of the predictor it was transferred from.
    """

    path: Path
    predictor: AccuracyPredictor
    even: Metrics | None
    offset: Offset | None
    samples: int
    before: Metrics | None = None


def train_predictor(
    path: Path,
    trained: TrainedSupernet,
    data: Measured,
    options: PredictorOptions,
    out: Path,
    world: World,
    progress: Reporter | None = None,
    *,
    start: AccuracyPredictor | None = None,
) -> Fitted | None:
    """Measure subnets of the supernet in file `path`, and fit the predictor. Samples in folder `out` are resumed.

    With `start`, the predictor of its subnets in fp32, they are measured in mixed precision, and the predictor is
    transferred from it.

    The leading process writes the predictor to `out` and returns it. Other processes return None.
    Raises `InputFileError` if `out` has samples of another request.
    """
    supernet = trained.supernet
    space = supernet.space if start is None else MixedSpace.of(supernet.space)
    _check_counts(options)
    if start is not None:
        start = start.widened(space)  # raises if it is for other networks
    drawn = draw_architectures(space, options.samples, options.seed)
    about = _about(supernet, space, data, options)
    if options.fresh and world.leads:
        for stem in (SAMPLES, TEST):
            SampleFolder(out, stem, about).forget()
    world.wait()
    supernet.to(world.device)

    def measure(stem: str, images: Images, wanted: Mapping[int, Architecture]) -> list[Sample]:
        evaluator: Evaluator | MixedEvaluator
        if isinstance(space, MixedSpace):
            evaluator = MixedEvaluator(supernet, data.calibration, data.ranges, images)
        else:
            evaluator = Evaluator(supernet, data.calibration, images)
        folder = SampleFolder(out, stem, {**about, "images": digest_of(images)})
        return folder.collect(wanted, len(images), evaluator.accuracy, world, progress)

    samples = measure(SAMPLES, data.held_out, dict(enumerate(drawn)))
    tested = measure(TEST, data.test, _spread(space, drawn)) if data.test is not None else []
    if not world.leads:
        return None
    report(progress, "fit", 0, 2)
    fitted = _fit(space, samples, options, start, accuracy_of(data, space), progress)
    return _save(out / PREDICTOR, fitted, _offset(samples, tested), start, {
        "samples": {"fitted": len(samples), "images": len(data.held_out), "seed": options.seed},
        "supernet": {"file": path.name, "weights_sha256": about["supernet"]},
    })  # fmt: skip


def _about(supernet: Supernet, space: SearchSpace, data: Measured, options: PredictorOptions) -> dict[str, Any]:
    """What determines the samples, but for the images."""
    about = {
        "format": 1,
        "space": space.name,
        "supernet": digest(supernet.state_dict().values()),
        "calibration": digest_of(data.calibration),
        "seed": options.seed,
    }
    return {**about, "ranges": digest_of(data.ranges)} if isinstance(space, MixedSpace) else about


def _save(
    path: Path,
    fitted: _FitOfSamples,
    offset: Offset | None,
    start: AccuracyPredictor | None,
    metadata: Mapping[str, Any],
) -> Fitted:
    # Without test images, the offset is that of the same supernet in fp32.
    mean = offset.mean if offset is not None else start.offset if start is not None else 0.0
    predictor = replace(fitted.predictor, offset=mean)
    even, before = fitted.even, fitted.before
    transfer = None if start is None else {"from": start.name, "metrics_before": before and before.to_json()}
    saved = predictor.save(
        path,
        metadata={
            **metadata,
            "metrics_of_evenly_drawn": even.to_json() if even else None,
            "offset_of": _offset_json(offset),
            **({"transfer": transfer} if transfer is not None else {}),
        },
    )
    return Fitted(saved, predictor, even, offset, metadata["samples"]["fitted"], before)


def _check_counts(options: PredictorOptions) -> None:
    if options.judged_by < 2 or options.samples - options.judged_by < MIN_SAMPLES:
        raise UsageError(
            f"{options.judged_by} of {options.samples} samples are held out: at least 2 must be held out, "
            f"and at least {MIN_SAMPLES} must remain"
        )


# --- fitting -----------------------------------------------------------------------------------------


class _FitOfSamples(NamedTuple):
    """The predictor of all samples; `before` are the errors of the one it was transferred from. See `Fitted`."""

    predictor: AccuracyPredictor
    even: Metrics | None
    before: Metrics | None


def _fit(
    space: SearchSpace,
    samples: Sequence[Sample],
    options: PredictorOptions,
    start: AccuracyPredictor | None,
    accuracy_of: str,
    progress: Reporter | None,
) -> _FitOfSamples:
    """Fit to some samples and measure the errors on the held-out ones, then fit to all samples."""

    def fitted(numbers: np.ndarray) -> AccuracyPredictor:
        chosen = [samples[i] for i in numbers]
        architectures, accuracies = [s.architecture for s in chosen], [s.accuracy for s in chosen]
        if start is not None:
            found = start.transferred(space, architectures, accuracies, seed=options.seed)
        else:
            found = AccuracyPredictor.fit(space, architectures, accuracies, seed=options.seed)
        return replace(found, name=Path(PREDICTOR).stem, accuracy_of=accuracy_of)

    order = np.random.default_rng(options.seed).permutation(len(samples))
    held_out = [samples[i] for i in order[: options.judged_by]]
    predicted = fitted(order[options.judged_by :]).predict(s.architecture for s in held_out)
    measured = np.array([s.accuracy for s in held_out])
    report(progress, "fit", 1, 2)
    even = np.array([is_drawn_evenly(s.index) for s in held_out])
    predictor = replace(fitted(np.arange(len(samples))), metrics=metrics(predicted, measured))
    report(progress, "fit", 2, 2)
    return _FitOfSamples(
        predictor,
        metrics(predicted[even], measured[even]) if even.any() else None,
        metrics(start.predict(s.architecture for s in held_out), measured) if start is not None else None,
    )


# --- the offset ----------------------------------------------------------------------------------------


def _spread(space: SearchSpace, drawn: Sequence[Architecture]) -> dict[int, Architecture]:
    """Select some of the drawn architectures, by number, evenly spread over the MACs."""
    order = np.argsort([space.macs(architecture) for architecture in drawn], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(TESTED, len(order))).round().astype(int)]
    return {int(index): drawn[index] for index in chosen}


def _offset(samples: Sequence[Sample], tested: Sequence[Sample]) -> Offset | None:
    if not tested:
        return None
    accuracy = {sample.index: sample.accuracy for sample in samples}
    differences = np.array([sample.accuracy - accuracy[sample.index] for sample in tested])
    return Offset(float(differences.mean()), float(differences.std()), len(tested), tested[0].images)


def _offset_json(offset: Offset | None) -> dict[str, Any] | None:
    if offset is None:
        return None
    return {
        # The name of this field is part of the file format.
        "says": f"accuracy on the test images is {describe(offset)}",
        "subnets": offset.subnets,
        "images": offset.images,
        "deviation": offset.deviation,
    }


def describe(offset: Offset) -> str:
    """Return a text that continues "accuracy on the test images is"."""
    return (
        f"{100 * abs(offset.mean):.2f} points {'lower' if offset.mean < 0 else 'higher'} than on the held-out ones "
        f"(mean of {offset.subnets} subnets, which differ by {100 * offset.deviation:.2f}, on {offset.images:,} images)"
    )
