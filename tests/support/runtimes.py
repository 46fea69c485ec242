"""Made-up releases of onnxruntime, each with its own fault, in a folder that stands for the package index."""

from __future__ import annotations

from pathlib import Path

from support.kits import STUB_NUMPY, STUB_RUNTIME
from support.wheels import make_wheel

_NUMPY_1 = """A module that was compiled using NumPy 1.x cannot be run in
NumPy 2.2.6 as it may crash. To support both 1.x and 2.x
versions of NumPy, modules must be compiled with NumPy 2.0.
"""

#: What a release does when it is imported.
FAULTS = {
    "SIGILL": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
    "SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.write(2, b\"terminate called after throwing an instance of 'std::out_of_range'\\n"
    '  what():  no core of that number\\n"); os.abort()',
    "exit": "import os; os.write(2, b'license expired\\n'); os._exit(3)",
    "numpy 1": f"import sys; sys.stderr.write({_NUMPY_1!r}); raise ImportError",
    "array": "raise AttributeError('_ARRAY_API not found')",
    "abi": "raise RuntimeError('module compiled against ABI version 0x1000009 but this version of numpy is 0x2000000')",
    "size": "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility. Expected 96, got 88')",
    "system": "raise SystemError('initialization of _state raised unreported exception')",
    "glibc": 'raise ImportError("/lib/libc.so.6: version `GLIBC_2.38\' not found (required by x.so)")',
    "noexec": "raise ImportError('Advice. ' * 99 + '\\nOriginal error was: /r/x.so: failed to map segment from shared '"
    "'object: Operation not permitted')",
    "memory": "raise ImportError('x.so: failed to map segment from shared object: Cannot allocate memory')",
    "stack": "raise ImportError('x.so: cannot enable executable stack as shared object requires: Invalid argument')",
    "library": "raise OSError('libgomp.so.1: cannot open shared object file: No such file or directory')",
}


def make_release(folder: Path, version: str, fault: str | None = None) -> None:
    """A release that works as the stub runtime, or has one of the `FAULTS`."""
    source = STUB_RUNTIME.replace("0.0-stub", version) if fault is None else FAULTS[fault]
    make_wheel(folder, "py3-none-any", version=version, files={"onnxruntime.py": source})


def make_numpy(folder: Path) -> None:
    for version in ("1.26.4", "2.0.2"):
        make_wheel(folder, "py3-none-any", name="numpy", version=version, files={"numpy.py": STUB_NUMPY})
