"""Objects of users' modules by name: `package.module:name`."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ofa_profiler.errors import OfaError, UsageError

_LONGEST_REASON = 300


def is_module_name(text: str) -> bool:
    """Whether a text is `package.module:name`."""
    module, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


@contextlib.contextmanager
def users_code(named: str) -> Iterator[None]:
    """While code of a user runs: the current folder is searched first, and stdout stays free for the JSON document.

    Whatever it raises becomes a `UsageError` of one line, which begins with `named`.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except BaseException as error:  # anything can happen in a user's code, also an exit
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"{named}: {one_line(error)}") from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def import_named(text: str) -> Any:
    """What a user's module calls so; to be used within `users_code`."""
    module, _, name = text.rpartition(":")
    return getattr(importlib.import_module(module), name)


def name_of(value: Any) -> str | None:
    """`package.module:name` of the variable that holds this object, None if no module has it.

    What the script that runs has is found under the name of its file, under which others can import it.
    """
    for module_name, module in list(sys.modules.items()):
        for name, held in list(getattr(module, "__dict__", {}).items()):
            if held is value:
                found = f"{_importable(module_name, module)}:{name}"
                if is_module_name(found):
                    return found
    return None


def _importable(name: str, module: Any) -> str:
    file = getattr(module, "__file__", None)
    return Path(file).stem if name == "__main__" and file else name


def one_line(error: BaseException) -> str:
    """The first lines of an error as one line. Those of this project need no type."""
    words = " ".join(str(error).split())
    if isinstance(error, OfaError):
        return words[:_LONGEST_REASON]
    return f"{type(error).__name__}: {words}".removesuffix(": ")[:_LONGEST_REASON]
