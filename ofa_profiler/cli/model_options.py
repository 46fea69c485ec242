"""The options of `ofa-profile` for models of users."""

from __future__ import annotations

import argparse
from pathlib import Path

from ofa_profiler.errors import UsageError

#: Options that only a search space has: name of the attribute -> option.
_OF_SPACES = {
    "space": "--space",
    "resolution": "--resolution",
    "batch": "--batch",
    "forms": "--forms",
    "like": "--like",
}
#: Options that need `--model`.
_OF_MODELS = {"shape": "--shape", "inputs": "--inputs", "rewrite": "--rewrite", "what_if": "--what-if"}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and what belongs to it."""
    group = parser.add_argument_group("your own network, in place of a search space")
    group.add_argument(
        "--model",
        metavar="FILE",
        action="append",
        help="network.onnx, network.tflite, or package.module:function that returns a torch module; measured as a "
        "whole and block by block; once per runtime and precision",
    )
    group.add_argument(
        "--shape",
        metavar="[INPUT=]1x3x224x224",
        action="append",
        default=[],
        help="shape of an input with open dimensions; repeat it for several inputs",
    )
    group.add_argument("--inputs", metavar="FILE.npz", type=Path, help="real inputs: an array per name of an input")
    group.add_argument(
        "--rewrite",
        metavar="OUT",
        type=Path,
        help="write the network in the forms that are faster on this device, if there are any, to OUT",
    )
    group.add_argument(
        "--what-if", action="store_true", help="measure the changes of the network that would save most time"
    )


def check_model_options(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for options that exclude each other."""
    if not arguments.model:
        for name, option in _OF_MODELS.items():
            if getattr(arguments, name):
                raise UsageError(f"{option} needs --model FILE")
        return
    for name, option in _OF_SPACES.items():
        if getattr(arguments, name) is not None:
            raise UsageError(f"{option} is for search spaces: omit it with --model")
    if arguments.calibrate is not None:
        option = "--calibrate" if arguments.calibrate else "--no-calibration"
        raise UsageError(f"{option} is for search spaces: omit it with --model, whose network is measured itself")
    if arguments.results is not None or arguments.remove_from_device:
        option = "--import" if arguments.results is not None else "--remove-from-device"
        raise UsageError(f"--model and {option} exclude each other")
