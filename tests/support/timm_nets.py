"""Networks of timm and torchvision with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from support.torchvision_operators import complete_torchvision


def _import(name: str) -> Any:
    """A package that needs torchvision, or skip."""
    complete_torchvision()
    return pytest.importorskip(name, reason=f"needs {name}, a dev dependency")


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
