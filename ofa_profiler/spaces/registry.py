"""The search spaces by name."""

from __future__ import annotations

from ofa_profiler.base.registry import Registry
from ofa_profiler.networks.architecture import MIXED, SPACE_CHECKS, Architecture
from ofa_profiler.spaces.base import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.spaces.mobilenetv3 import CIFAR_MBV3, OFA_MBV3_W10, OFA_MBV3_W12
from ofa_profiler.spaces.proxyless import OFA_PROXYLESS_W13
from ofa_profiler.spaces.resnet50 import OFA_RESNET50

_SPACES: Registry[SearchSpace] = Registry("search space")


def register_space(space: SearchSpace) -> None:
    """Register a space for all commands and files. Raises `UsageError` if its name is taken."""
    _SPACES.add(space.name, space)
    SPACE_CHECKS.add(space.name, _check)


def _check(architecture: Architecture) -> None:
    get_space(architecture.space).validate(architecture)


def get_space(name: str) -> SearchSpace:
    """The search space of this name; for `NAME-mixed`, the networks of NAME in mixed precision.

    Raises `UsageError` for an unknown name.
    """
    if name.endswith(MIXED):
        return MixedSpace.of(_SPACES.get(name.removesuffix(MIXED)))
    return _SPACES.get(name)


def space_names() -> tuple[str, ...]:
    """The names of all registered spaces."""
    return _SPACES.names()


for _space in (OFA_MBV3_W10, OFA_MBV3_W12, OFA_PROXYLESS_W13, OFA_RESNET50, CIFAR_MBV3):
    register_space(_space)
