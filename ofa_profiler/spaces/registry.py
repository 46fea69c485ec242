"""The search spaces by name."""

from __future__ import annotations

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.base import SearchSpace
from ofa_profiler.spaces.mobilenetv3 import CIFAR_MBV3, OFA_MBV3_W10, OFA_MBV3_W12
from ofa_profiler.spaces.proxyless import OFA_PROXYLESS_W13
from ofa_profiler.spaces.resnet50 import OFA_RESNET50

_SPACES: dict[str, SearchSpace] = {
    space.name: space for space in (OFA_MBV3_W10, OFA_MBV3_W12, OFA_PROXYLESS_W13, OFA_RESNET50, CIFAR_MBV3)
}


def space_names() -> tuple[str, ...]:
    """The names that `get_space` knows."""
    return tuple(_SPACES)


def get_space(name: str) -> SearchSpace:
    """The search space of that name. Raises `UsageError` with the known names."""
    try:
        return _SPACES[name]
    except KeyError:
        raise UsageError(f"unknown search space {name!r}; known are {', '.join(_SPACES)}") from None
