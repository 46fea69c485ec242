"""One file per runtime, with the name of the runtime in the manifest. It has a class `Runtime`:

    Runtime(settings, spare_core)   can raise `Fatal`. `settings` is that of the manifest: `provider`, `threads`, ...
                                    `spare_core`: whether a core is free for the rest of the system
    info                            {"name", "version", "provider"}, for the `device` record
    load(model, inputs)             takes the bytes of a model and the descriptions of its inputs (`inputs.py`), and
                                    returns a function without arguments that runs the model once. An exception
                                    fails this model only.
    spread_bytes, weight_bytes      set before `load`; optional: the function runs the model in turns on copies of its
                                    inputs and outputs, and of its weights (`copies.py`)
    profiling(model, inputs)        optional: a context manager that gives such a function, with the runtime's own
                                    profiler on, and a function `kernels(n)`, which ends it and returns the kernels of
                                    the last n runs: [{"name", "kind", "ns", "calls"}, ...] (`traces.py`)

`__init__` imports the packages of the runtime. The top of the file must not, because only the worker needs them.
"""

import importlib
import os
import re
import sys

from ..errors import Fatal
from ..reading import one_line


def check(name):
    """Raise `Fatal` if this agent does not have the runtime."""
    valid = re.match("[A-Za-z0-9][A-Za-z0-9_-]*$", name)
    if not valid or not os.path.isfile(os.path.join(os.path.dirname(__file__), name + ".py")):
        raise Fatal("this agent has no runtime %r" % name, usage=True)


def find(name):
    """Return the class of the runtime `name`. Raises `Fatal`."""
    check(name)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module("%s.%s" % (__name__, name)).Runtime
    finally:
        sys.dont_write_bytecode = before


def load(settings, spare_core):
    """Import the runtime of the settings and return it. Raises `Fatal`, whatever the import raises.

    A runtime that was built for other libraries raises much else than `ImportError`.
    """
    try:
        return find(settings["runtime"])(settings, spare_core)
    except Fatal:
        raise
    except Exception as error:
        words = "%s: %s" % (type(error).__name__, one_line(error, 8000))
        raise Fatal(words, cause="runtime") from error
