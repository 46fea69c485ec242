"""Plugins: installed packages that add runtimes, kinds of devices, engines, spaces, layers or corrections.

A plugin is an entry point of the group `ofa_profiler.plugins`. It names a function without arguments, which calls the
`register_*` functions. All commands call all plugins at their start (docs/extending.md).
"""

from __future__ import annotations

from importlib.metadata import entry_points

from ofa_profiler.errors import UsageError

GROUP = "ofa_profiler.plugins"

_loaded: set[tuple[str, str]] = set()


def load_plugins() -> None:
    """Call all plugins that this process has not called yet.

    Raises `UsageError` with the name of a plugin that cannot be loaded.
    """
    for plugin in entry_points(group=GROUP):
        if (plugin.name, plugin.value) in _loaded:
            continue
        _loaded.add((plugin.name, plugin.value))
        try:
            plugin.load()()
        except Exception as error:
            package = plugin.dist.name if plugin.dist is not None else plugin.value
            raise UsageError(f"plugin {plugin.name} of the package {package} cannot be loaded: {error}") from error
