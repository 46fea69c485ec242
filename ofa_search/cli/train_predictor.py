"""`ofa-train predictor`."""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.cli.options import positive_integer, whole_number
from ofa_profiler.errors import UsageError
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.cli import train_options as common
from ofa_search.predictor import AccuracyPredictor
from ofa_search.supernet.description import weights_path

if TYPE_CHECKING:
    from ofa_search.evaluation.fit_predictor import Fitted
    from ofa_search.evaluation.measured import Measured
    from ofa_search.evaluation.world import World
    from ofa_search.supernet.supernet import TrainedSupernet

HELP = "fit an accuracy predictor to subnets of a supernet"
DESCRIPTION = """\
Draw architectures, measure their accuracy on held-out training images, and fit a predictor to them.
DIR gets predictor.safetensors, predictor.json with its errors, and the accuracies in samples-*.csv.
With --precision mixed, every block of a network is computed in 8-bit integers or in 32-bit floats, and the
predictor of fp32 is fine-tuned on fewer samples.
After an interruption, even by kill -9, run the same command again: it resumes. A larger --samples
adds to the existing samples.
"""
EXAMPLES = """\
examples:
  ofa-train predictor --supernet out/supernet/supernet.safetensors --data cifar10/ --out out/predictor
  ofa-train predictor --supernet out/supernet/supernet.safetensors --data cifar10/ --test-data cifar10/ \\
      --samples 500 --images 2000 --out out/predictor
  ofa-train predictor --supernet cifar-mbv3 --data cifar10/ --precision mixed --samples 300 --out out/mixed
  torchrun --nproc-per-node 2 -m ofa_search.train_cli predictor --threads 1 \\
      --supernet out/supernet/supernet.safetensors --data cifar10/ --out out/predictor
"""
#: The default number of samples, by precision.
_SAMPLES = {"fp32": 1000, "mixed": 300}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("images and files")
    files.add_argument(
        "--supernet",
        metavar="NAME|FILE",
        type=Path,
        required=True,
        help="supernet file written by ofa-train supernet, or name of an included one",
    )
    files.add_argument("--space", metavar="NAME", help="its space, package.module:NAME, if you wrote it")
    files.add_argument("--data", metavar="PATH", type=Path, required=True, help="the training images of the supernet")
    files.add_argument(
        "--test-data",
        metavar="PATH",
        type=Path,
        help="test images; used for the offset between held-out and test accuracy only",
    )
    common.add_skip_damaged(files)
    files.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    files.add_argument(
        "--cache", metavar="DIR", type=Path, help="folder for decoded images (default: images/ in the user's cache)"
    )
    files.add_argument(
        "--from",
        metavar="FILE",
        dest="start",
        type=Path,
        help="predictor of the supernet in fp32, for --precision mixed (default: the one beside the supernet)",
    )
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--precision", choices=tuple(_SAMPLES), default="fp32", help="of the networks (default: %(default)s)"
    )
    samples.add_argument(
        "--samples",
        metavar="N",
        type=positive_integer,
        help=f"number of architectures (default: {_SAMPLES['fp32']}; with --precision mixed {_SAMPLES['mixed']})",
    )
    samples.add_argument(
        "--held-out-samples",
        metavar="N",
        type=positive_integer,
        help="number of architectures held out to evaluate the predictor (default: a fifth)",
    )
    samples.add_argument(
        "--images",
        metavar="N",
        type=positive_integer,
        help="number of images to measure on (default: all images held out in the supernet's training)",
    )
    samples.add_argument(
        "--seed", metavar="S", type=whole_number, default=0, help="random seed of the architectures (default: 0)"
    )
    samples.add_argument("--fresh", action="store_true", help="discard existing samples in --out and start again")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    machine.add_argument("--threads", metavar="N", type=positive_integer, help="CPU threads per process")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def run(arguments: Namespace) -> int:
    """Measure, fit and report -> the exit code."""
    from ofa_search.evaluation.fit_predictor import PredictorOptions, train_predictor
    from ofa_search.evaluation.world import join_world
    from ofa_search.supernet.supernet import load_trained

    common.prepare_process(arguments.threads)
    arguments.supernet = shipped_supernet(str(arguments.supernet)) or arguments.supernet
    start = _start(arguments)
    samples = arguments.samples or _SAMPLES[arguments.precision]
    options = PredictorOptions(samples, arguments.held_out_samples, arguments.seed, arguments.fresh)
    trained = load_trained(arguments.supernet, arguments.space)
    with join_world(arguments.device) as world, common.progress(world) as reporter:
        data = _data(arguments, trained, world, reporter)
        fitted = train_predictor(
            arguments.supernet, trained, data, options, arguments.out, world, _timed(reporter), start=start
        )
    if fitted is not None:
        _report(arguments, fitted)
    return 0


def _start(arguments: Namespace) -> AccuracyPredictor | None:
    """The predictor to transfer; None for fp32. Raises `UsageError` and `InputFileError`."""
    if arguments.precision == "fp32":
        if arguments.start is not None:
            raise UsageError("--from is for --precision mixed")
        return None
    supernet = weights_path(arguments.supernet)
    beside = [supernet.with_name(f"{supernet.stem}-predictor.safetensors"), supernet.with_name("predictor.safetensors")]
    start = arguments.start or next((path for path in beside if path.is_file()), None)
    if start is None:
        raise UsageError(
            "--precision mixed starts from the predictor of fp32, and there is no "
            f"{' or '.join(path.name for path in beside)} beside the supernet: give --from FILE"
        )
    return AccuracyPredictor.load(start)


def _data(arguments: Namespace, trained: TrainedSupernet, world: World, reporter: Reporter | None) -> Measured:
    from ofa_search.evaluation.measured import measured_on, number_held_out

    held_out = number_held_out(arguments.supernet, trained)
    wanted = Namespace(**vars(arguments), held_out=held_out)
    # The training of the supernet has told what it understood of these images.
    data = common.load_data(wanted, max(trained.supernet.space.valid_resolutions), world, reporter, tell=common.silent)
    return measured_on(arguments.supernet, trained, data, arguments.data.name, arguments.images)


def _timed(reporter: Reporter | None) -> Reporter | None:
    """Add an estimate of the time left, from the time that each phase has taken so far."""
    if reporter is None:
        return None
    began: dict[str, tuple[float, int]] = {}

    def show(progress: Progress) -> None:
        since, first = began.setdefault(progress.phase, (time.monotonic(), progress.done))
        left_s = None
        if progress.total is not None and progress.done > first:
            each_s = (time.monotonic() - since) / (progress.done - first)
            left_s = each_s * (progress.total - progress.done)
        reporter(replace(progress, left_s=left_s))

    return show


def _report(arguments: Namespace, fitted: Fitted) -> None:
    from ofa_search.evaluation.fit_predictor import describe

    predictor, quality = fitted.predictor, fitted.predictor.metrics
    assert quality is not None
    document: dict[str, Any] = {
        "predictor": str(fitted.path),
        "space": predictor.space,
        "samples": fitted.samples,
        "accuracy_of": predictor.accuracy_of,
        "metrics": quality.to_json(),
        "metrics_of_evenly_drawn": fitted.even.to_json() if fitted.even else None,
        "metrics_before_transfer": fitted.before.to_json() if fitted.before else None,
        "offset": predictor.offset if fitted.offset else None,
    }
    lines = [f"top-1 of {predictor.accuracy_of}"]
    for what, one in (("", quality), (" drawn evenly", fitted.even), (" before the transfer", fitted.before)):
        if one is not None:
            lines.append(
                f"on {one.samples} held-out architectures{what}: RMSE {one.rmse:.2f} points, "
                f"Kendall tau {_rank(one.kendall_tau)}, Spearman {_rank(one.spearman)}"
            )
    if fitted.offset is not None:
        lines.append(f"accuracy on the test images is {describe(fitted.offset)}")
    common.report(arguments, document, [*lines, f"written to {fitted.path}, fitted to all {fitted.samples} samples"])


def _rank(value: float) -> str:
    """A rank correlation, or why there is none."""
    return "unknown (all accuracies are equal)" if math.isnan(value) else f"{value:.3f}"
