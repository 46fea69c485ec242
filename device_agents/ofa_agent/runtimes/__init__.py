"""One file per runtime, named like the runtime in the manifest. It has a class `Runtime`:

    Runtime(settings, spare_core)   may raise `Fatal`. `settings` is the manifest's: `provider`, `threads`, ...
                                    `spare_core`: whether a core is left over for the rest of the system
    info                            {"name", "version", "provider"}, for the record of the device
    load(model, inputs)             bytes of a model, descriptions of its inputs (`inputs.py`) -> a function without
                                    arguments that runs the model once. Any exception fails this model alone.

The packages of the runtime are imported in `__init__`, never at the top of the file: only the worker needs them.
"""

import importlib
import os
import re
import sys

from ..errors import Fatal


def check(name):
    """Raise `Fatal` if there is no file for this runtime."""
    valid = re.match("[A-Za-z0-9][A-Za-z0-9_-]*$", name)
    if not valid or not os.path.isfile(os.path.join(os.path.dirname(__file__), name + ".py")):
        raise Fatal("this agent has no runtime %r" % name, usage=True)


def find(name):
    """The class of the runtime `name`."""
    check(name)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module("%s.%s" % (__name__, name)).Runtime
    finally:
        sys.dont_write_bytecode = before
