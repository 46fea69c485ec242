"""The search spaces by name."""

from __future__ import annotations

from ofa_profiler.base.registry import Registry
from ofa_profiler.base.user_code import import_named, is_module_name, name_of, users_code
from ofa_profiler.errors import UsageError
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

    `package.module:NAME` is a space of a user (`language/`): the module is imported, the current folder is searched
    first. Raises `UsageError` for an unknown name.
    """
    plain = name.removesuffix(MIXED)
    if is_module_name(plain) and plain not in space_names():
        _load(plain)
    return known_space(name)


def as_space(space: SearchSpace | str) -> SearchSpace:
    """The space of this name, or this one; a user's gets the name of its variable, `package.module:NAME`.

    Raises `UsageError` for an unknown name, and for a space that is no variable of a module.
    """
    if isinstance(space, str):
        return get_space(space)
    if space.name:
        return space
    name = name_of(space)
    if name is None:
        raise UsageError("a space is known by a variable of a module: write SPACE = space(…) at its top level")
    named = space.named(name)
    if name not in space_names():
        register_space(named)
    elif _SPACES.get(name) != named:  # written anew, as in a notebook
        _SPACES.replace(name, named)
    return _SPACES.get(name)


def known_space(name: str) -> SearchSpace:
    """As `get_space`, for a name that a file says: no module is imported for it. Raises `UsageError`."""
    plain = name.removesuffix(MIXED)
    if is_module_name(plain) and plain not in space_names():
        raise UsageError(
            f"space {plain} is a file of yours: give --space {plain}, in Python get_space({plain!r}), first"
        )
    space = _SPACES.get(plain)
    return MixedSpace.of(space) if name.endswith(MIXED) else space


def space_names() -> tuple[str, ...]:
    """The names of all registered spaces."""
    return _SPACES.names()


def _load(name: str) -> None:
    """Import and register the space of a user, under this name. Raises `UsageError`."""
    with users_code(f"space {name}"):
        found = import_named(name)
    if not isinstance(found, SearchSpace):
        raise UsageError(f"space {name}: {name.rpartition(':')[2]} is {type(found).__name__}, not a space(…)")
    register_space(found.named(name))


for _space in (OFA_MBV3_W10, OFA_MBV3_W12, OFA_PROXYLESS_W13, OFA_RESNET50, CIFAR_MBV3):
    register_space(_space)
