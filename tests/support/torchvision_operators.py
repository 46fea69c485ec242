"""Importing an installed torchvision whose compiled operators belong to another release of torch."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

_KEPT: list[Any] = []


def complete_torchvision() -> None:
    """Declare the operators that torchvision fails to find, if it is installed and does. No network needs them."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # it is undone when it is deleted
