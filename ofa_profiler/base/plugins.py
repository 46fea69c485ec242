"""Plugins: installed packages that add runtimes, kinds of devices, engines, spaces, layers or corrections.

A plugin is an entry point of the group `ofa_profiler.plugins`. It names a function without arguments, which calls the
`register_*` functions. All commands call all plugins at their start (docs/extending.md).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from ofa_profiler.errors import UsageError

GROUP = "ofa_profiler.plugins"

#: What came of each plugin: None, or the error that every later call raises again.
_outcomes: dict[tuple[str, str], UsageError | None] = {}


def load_plugins() -> None:
    """Call all plugins that this process has not called yet.

    Raises `UsageError` with the name of a plugin that cannot be loaded.
    """
    if not _is_declared():
        return
    from importlib.metadata import entry_points  # slow to import

    for plugin in entry_points(group=GROUP):
        identity = (plugin.name, plugin.value)
        if identity not in _outcomes:
            _outcomes[identity] = None  # a plugin may look up a name that is not known yet, which loads the plugins
            try:
                plugin.load()()
            except Exception as error:
                package = plugin.dist.name if plugin.dist is not None else plugin.value
                words = f"plugin {plugin.name} of the package {package} cannot be loaded: {error}"
                _outcomes[identity] = UsageError(words)
        if (failure := _outcomes[identity]) is not None:
            raise failure


def _is_declared() -> bool:
    """Whether an installed package may declare a plugin: a search starts faster without `importlib.metadata`."""
    for entry in dict.fromkeys(sys.path):
        folder = entry or "."
        if os.path.isfile(folder):  # an archive of packages  # noqa: PTH113
            return True
        try:
            names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))]  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            with suppress(OSError):
                if GROUP.encode() in Path(folder, name, "entry_points.txt").read_bytes():
                    return True
    return False
