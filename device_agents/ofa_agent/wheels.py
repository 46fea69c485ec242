"""The runtime in a kit, as wheels. They are unpacked once, to a folder of the kit."""

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import zipfile

from .errors import Damaged, Fatal
from .files import verified
from .reading import one_line


def python_tag():
    """Return the tag of wheels for this Python, like `aarch64-cp311`."""
    machine = platform.machine()
    if sys.maxsize < 1 << 32:  # a 64-bit kernel can run a 32-bit system
        machine = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    free_threaded = "t" if "t" in getattr(sys, "abiflags", "") else ""
    return "%s-cp%d%d%s" % (machine, sys.version_info[0], sys.version_info[1], free_threaded)


def use_wheels(kit):
    """If the kit contains a runtime, use it instead of an installed one. Raises `Fatal`."""
    if not kit.wheels:
        return
    tag, files = kit.wheels
    if tag != python_tag():
        words = "the wheels of this kit are for %s, but this Python is %s; give that to ofa-profile --wheels"
        raise Fatal(words % (tag, python_tag()), usage=True)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
    folder = os.path.abspath(os.path.join(kit.folder, "runtime-" + digest))
    if not os.path.isdir(folder):
        unpack_wheels(kit, files, folder)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])


def unpack_wheels(kit, files, folder):
    """Unpack all wheels to a folder. It gets its final name when it is complete. Raises `Fatal`."""
    fresh = folder + ".incoming"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for name, sha256 in sorted(files.items()):
            path = os.path.join(kit.folder, "wheels", os.path.basename(name))
            with zipfile.ZipFile(io.BytesIO(verified(path, sha256))) as wheel:
                for member in wheel.namelist():
                    place = installed(member)
                    if place is not None:
                        target = os.path.join(fresh, *place)
                        os.makedirs(os.path.dirname(target), exist_ok=True)
                        with wheel.open(member) as source, open(target, "wb") as file:
                            shutil.copyfileobj(source, file)
        os.rename(fresh, folder)
    except (OSError, Damaged, zipfile.BadZipFile) as error:
        raise Fatal("the wheels of this kit cannot be unpacked: %s" % one_line(error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def installed(member):
    """Return where a member of a wheel is installed (PEP 427), as parts of a path; None if it is not installed."""
    parts = member.split("/")
    if parts[0].endswith(".data"):
        parts = parts[2:] if parts[1:2] in (["purelib"], ["platlib"]) else []
    return parts if parts and all(parts) and not {".", ".."}.intersection(parts) else None
