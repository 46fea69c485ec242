"""Whether a network of a user is a classifier of the classes of some images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_profiler.models.image_input import ImageInput
from ofa_search.data.images import Images
from ofa_search.evaluation.subnets import device_of

_LONGEST_REASON = 200


def is_chance(accuracy: float, images: Images) -> bool:
    """Whether guessing reaches this accuracy, within three standard deviations."""
    chance = 1 / max(1, len(images.classes))
    return accuracy <= chance + 3 * math.sqrt(chance * (1 - chance) / max(1, len(images)))


@torch.no_grad()
def outputs_of(network: nn.Module, image_input: ImageInput, where: str) -> int:
    """The number of classes of a classifier, which `where` names. Raises `UsageError` if it is none."""
    network.eval()
    _check_weights(network, where)
    try:
        outputs = network(torch.zeros(image_input.shape, device=device_of(network)))
    except Exception as error:  # anything can happen in a user's code
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        size = "x".join(map(str, image_input.shape))
        raise UsageError(f"{where} does not run with an input of {size}: {type(error).__name__}: {reason}") from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[0] != 1:
        found = f"of the shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UsageError(
            f"{where} is no classifier: its output is {found}, not (1, classes); use ofa_search.prune in Python"
        )
    if not outputs.isfinite().all():
        raise UsageError(f"{where} gives outputs that are not finite: are its weights damaged?")
    return int(outputs.shape[1])


def _check_weights(network: nn.Module, where: str) -> None:
    weights = [weight for weight in network.parameters() if weight.is_floating_point()]
    if not weights:
        raise UsageError(f"{where} has no weights: there is nothing to prune")
    if others := [weight.dtype for weight in weights if weight.dtype != torch.float32]:
        name = str(others[0]).removeprefix("torch.")
        raise UsageError(f"{where} has weights of {name}: return module.float(), in which it is trained")


def unfreeze(network: nn.Module) -> int:
    """Let all weights be trained -> how many tensors were not. The value of a unit is told by its gradients."""
    frozen = [weight for weight in network.parameters() if weight.is_floating_point() and not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    return len(frozen)


def check_classes(outputs: int, classes: Sequence[str], images: str, where: str) -> None:
    """Raise `UsageError` if the outputs of the network cannot be the classes of the images."""
    if outputs != len(classes):
        raise UsageError(
            f"{where} has {outputs} outputs, but {images} has {len(classes)} classes; give the images of its classes, "
            "or a network with these outputs"
        )
