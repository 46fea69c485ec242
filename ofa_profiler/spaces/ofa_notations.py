"""Reads and writes architectures in the notations of the OFA authors: settings (`ks, e, d, r`) and `net.config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import NOTATIONS, Architecture, Notation
from ofa_profiler.spaces.base import SearchSpace
from ofa_profiler.spaces.net_config import from_net_config, is_net_config, to_net_config
from ofa_profiler.spaces.ofa_settings import from_settings, is_settings, matches_width, named_space, to_settings
from ofa_profiler.spaces.registry import get_space, space_names


def _read_settings(data: Mapping[str, Any], default: str | None) -> Architecture:
    named = named_space(data) or default
    names = _candidates() if named is None else (named,)
    return from_settings(_spaces(name for name in names if named or matches_width(data, name)), data)


def _read_net_config(data: Mapping[str, Any], _default: str | None) -> Architecture:
    """The channels in the file determine the space."""
    named = data.get("space")
    return from_net_config(_spaces([named] if isinstance(named, str) else _candidates()), data)


def _candidates() -> list[str]:
    return [name for name in space_names() if not is_module_name(name)]


def _spaces(names: Iterable[str]) -> list[SearchSpace]:
    return [_space(name) for name in names]


def _space(name: str) -> SearchSpace:
    """The space of this name. Raises `UsageError` for one of a user, whose choices have other names."""
    if is_module_name(name):
        raise UsageError(f"space {name} is a user's: its architectures have 'choices', not ks, e, d, r or net.config")
    return get_space(name)


def _write_settings(architecture: Architecture) -> dict[str, Any]:
    return to_settings(_space(architecture.space), architecture)


def _write_net_config(architecture: Architecture) -> dict[str, Any]:
    return to_net_config(_space(architecture.space), architecture)


def add_ofa_notations() -> None:
    """Add the notations to `Architecture`."""
    NOTATIONS.add("ks, e, d, r", Notation(is_settings, _read_settings, _write_settings))
    NOTATIONS.add("net.config", Notation(is_net_config, _read_net_config, _write_net_config))
