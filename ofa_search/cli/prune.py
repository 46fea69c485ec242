"""`ofa-prune`: make a trained network as fast as a budget asks, measured on a device."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import sys
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.base.extras import need
from ofa_profiler.cli.options import Parser, add_device_options, positive_integer
from ofa_profiler.devices.registry import device_names
from ofa_search.cli import train_options as common
from ofa_search.cli.processes import run_in_processes
from ofa_search.cli.prune_request import read_request

PROG = "ofa-prune"

_DESCRIPTION = """\
Prune a trained torch network to a number of milliseconds on your device, and train it meanwhile. DIR gets the pruned
network as NAME.onnx, NAME.tflite and NAME.safetensors, NAME.json with all figures, the report NAME.html, the measured
grid NAME-grid.csv and the log of the training. After an interruption, even by kill -9, run the same command again:
it resumes.
"""

_EXAMPLES = """\
examples:
  ofa-prune --model my_nets:resnet20 --input 1x3x32x32 --data cifar10/ --device local --budget 200us --out out/pruned
  ofa-prune --model my_nets:resnet20 --input 1x3x32x32 --data cifar10/ --device ssh:pi@board --threads 4 \\
      --budget 8ms --epochs 20 --test-data cifar10/ --out out/for-the-board
  ofa-prune --model my_nets:resnet20 --input 1x3x32x32 --data cifar10/ --device adb:R58M123ABC --runtime litert \\
      --budget 8ms --out out/for-the-phone
  ofa-prune --model my_nets:resnet20 --input 1x3x32x32 --data cifar10/ --lut out/pruned/resnet20-grid.csv \\
      --budget 150us --out out/faster                       nothing is measured
  torchrun --nproc-per-node 2 -m ofa_search.prune_cli --model my_nets:resnet20 ...    several processes

The function returns the trained module, or (module, {mean, std, resolution, channels, range}); what it does not say
is as for ImageNet. The outputs of the network are the classes of --data, in their order.

exit codes: 0 done, 2 bad usage or bad input, 3 no pruned network meets the budget, 4 the device failed, 5 over the
budget when measured, 130 or 143 interrupted
"""
#: The names of `ofa_search.pruning.optimizers`, which needs torch. A test holds them together.
METHODS = ("hesso", "hesso-cric", "dhspg")
#: Those of `ofa_search.pruning.latency.exporters`, likewise.
RUNTIMES = ("onnxruntime", "litert")
EPOCHS = 10.0
_RESUME = "interrupted; run the same command again to resume"


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    what = parser.add_argument_group("network and budget")
    what.add_argument(
        "--model",
        metavar="PACKAGE.MODULE:FUNCTION",
        required=True,
        help="function without arguments that returns the trained torch module; the current folder is searched first",
    )
    what.add_argument("--input", metavar="1x3x224x224", required=True, help="shape of the input, with a batch of 1")
    what.add_argument("--budget", metavar="T", required=True, help="latency of the pruned network, for example 20ms")
    what.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="how units are chosen and removed: hesso (saliency, then decay to zero), hesso-cric (the same, tried in "
        "cycles before), dhspg (penalty and half-space step of OTOv2) (default: %(default)s)",
    )
    what.add_argument("--name", metavar="NAME", help="name of the files (default: that of the function)")
    _add_latency(parser)
    common.add_data_arguments(parser)
    common.add_training_arguments(
        parser, epochs=f"{EPOCHS:g}", learning_rate="0.001 for adamw, 0.01 for sgd", machine="train-"
    )
    add_device_options(parser)
    return parser


def _add_latency(parser: Parser) -> None:
    group = parser.add_argument_group("where the milliseconds come from (--device or --lut)")
    group.add_argument("--device", metavar="DEVICE", help=f"device to measure, one of {device_names()}")
    group.add_argument(
        "--lut",
        metavar="TABLE.csv",
        type=Path,
        help="grid that ofa-prune --device wrote: nothing is measured, and points that it lacks are not used",
    )
    group.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help=f"what runs the network (default: {RUNTIMES[0]}, or that of the grid)",
    )
    group.add_argument("--provider", metavar="EP", help="execution provider, as in ofa-profile")
    group.add_argument(
        "--threads",
        metavar="N",
        type=positive_integer,
        help="number of threads, and of cores, of the device (default: 1)",
    )
    group.add_argument(
        "--time-limit",
        metavar="T",
        default="12m",
        help="time for the measurements of the grid; the first round always completes (default: %(default)s)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""
    return run_in_processes(PROG, lambda: _prune(argv), interrupted=lambda: _RESUME)


def _prune(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    request = read_request(arguments)
    need("torch", extra="train", purpose=PROG)
    from ofa_search.cli.prune_run import prune_network

    return prune_network(request, arguments, EPOCHS)


if __name__ == "__main__":
    sys.exit(leave(main()))
