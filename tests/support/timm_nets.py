"""Networks of timm and torchvision with random weights."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

_KEPT: list[Any] = []


def _import(name: str) -> Any:
    """A package that needs torchvision, or skip. The operators of torchvision may have been built for another torch."""
    try:
        return pytest.importorskip(name, reason=f"needs {name}, a dev dependency")
    except RuntimeError:
        for module in [each for each in sys.modules if each.partition(".")[0] in ("torchvision", name)]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # it is undone when it is deleted
        return pytest.importorskip(name)


def timm_net(name: str, **options: Any) -> nn.Module:
    """A network of timm whose BatchNorms differ between channels."""
    torch.manual_seed(0)
    return with_statistics(_import("timm").create_model(name, **options))


def torchvision_net(name: str, **options: Any) -> nn.Module:
    """A network of torchvision whose BatchNorms differ between channels."""
    torch.manual_seed(0)
    return with_statistics(getattr(_import("torchvision.models"), name)(weights=None, **options))


def with_statistics(module: nn.Module) -> nn.Module:
    """The module, as if its BatchNorms had been trained: a wrong folding shows."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((each.running_mean, -0.2, 0.2), (each.running_var, 0.5, 1.5)):
                nn.init.uniform_(tensor, low, high)
            for tensor, low, high in ((each.weight, 0.7, 1.3), (each.bias, -0.2, 0.2)):
                nn.init.uniform_(tensor, low, high)
    return module
