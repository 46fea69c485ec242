#!/usr/bin/env python3
"""Keeps the files that an agent needs in a private folder of this device.

The host sends this file, one line that says what to do (the SHA-256 of some JSON, and that JSON), and for
`receive` a compressed tar, all in one stream through stdin. Standard library only, Python 3.7 or newer. JSON
lines on stdout:

    {"type": "busy"}           every two seconds: still at work
    {"type": "store", ...}     the answer; with an `error`, what could not be done, and with `again`, worth another try

What can be asked for (`do`):

    hello      make the folder `root`, say where it is and what kind of Python this is
    missing    of `files` {path: SHA-256}, `folders` and `links`: which are not here, or not what they should be?
               `results` {path, size, sha256}: does that file begin with these bytes?
    receive    take `files` {path: SHA-256} from the tar, put `joined` {path: [SHA-256, paths of its pieces]}
               together, unpack wheels to `folders`, and make `links` {path: target}. Every file is checked and
               renamed into its place, a folder as a whole, so what has its name is complete, and what came
               before a transfer was cut off need not come again. Large files come in pieces for that.

A folder is named by its path and says where its files come from, how long they are, and their CRC-32:
{path of a wheel: {path in the folder: [member of the wheel, size, CRC-32]}}. The wheels are among the files, or here
already; they are removed when the folder is there.

In the root: `models/` by hash for all kits, `runtimes/` (unpacked wheels), `agents/`, and per measurement
`kits/ID/` with its manifest and results.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import glob
import gzip
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib

BUSY_EVERY_S = 2.0
CHUNK = 1 << 20
INCOMING = ".incoming-"
#: Where the host puts pieces of large files, and how long they wait for the rest.
PIECES = "pieces"
PIECES_STAY_S = 7 * 86400
DAMAGED = "the transfer was cut off or damaged: %s"


class Refused(Exception):
    """What was asked for cannot be done; says why."""


class Damaged(Exception):
    """What came is not what was sent, or not all of it; says what."""


class Overtaken(Exception):
    """Another host used what this one had brought: ask again what is missing."""


# --- what this device is ------------------------------------------------------------------------------


def libc():
    """Name and version of the C library that this Python runs on; None for each that cannot be told."""
    try:
        name, _, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
        return name, version
    except (AttributeError, OSError, ValueError):
        pass
    for loader in glob.glob("/lib/ld-musl-*.so.1"):
        said = subprocess.run([loader], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL).stderr.decode()
        for line in said.splitlines():
            if line.startswith("Version "):
                return "musl", line.split()[1]
        return "musl", None
    return None, None


def machine():
    """The instruction set that this Python uses: many a 64-bit kernel carries a 32-bit system."""
    name = platform.machine()
    if struct.calcsize("P") == 4:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(name, name)
    return name


def hello(root):
    """Make the private folder and describe this Python."""
    if os.path.lexists(root) and not os.path.isdir(root):
        raise Refused("%s is in the way: it is no folder" % root)
    os.makedirs(root, mode=0o700, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise Refused("the folder %s cannot be written: it belongs to somebody else, or the disk is read-only" % root)
    forget_stale(root)
    name, version = libc()
    return {
        "root": root,
        "system": platform.system(),
        "machine": machine(),
        "libc": name,
        "libc_version": version,
        "implementation": platform.python_implementation(),
        "python": list(sys.version_info[:2]),
        "abi": "cp%d%d%s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "abiflags", "")),
    }


@contextlib.contextmanager
def locked(folder, wait=True):
    """Within, the folder is ours alone. The system drops the lock with its holder. `OSError` if we may not `wait`."""
    with open(os.path.join(folder, ".lock"), "ab") as file:  # not the folder itself: NFS locks what can be written
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def forget_stale(root):
    """Remove what transfers that were cut off have left, unless whoever receives it still lives, or may come back."""
    for path in glob.glob(os.path.join(glob.escape(root), INCOMING + "*")):
        with contextlib.suppress(OSError), locked(path, wait=False):
            shutil.rmtree(path, ignore_errors=True)
    for path in glob.glob(os.path.join(glob.escape(root), PIECES, "*")):
        with contextlib.suppress(OSError):
            if abs(time.time() - os.path.getmtime(path)) > PIECES_STAY_S:  # should a clock jump, they come again
                os.unlink(path)


# --- what is here -------------------------------------------------------------------------------------


def hash_of(path, size=None):
    """SHA-256 of a file, or of its first `size` bytes; None if it cannot be read or is shorter."""
    digest = hashlib.sha256()
    left = os.path.getsize(path) if size is None else size
    with open(path, "rb") as file:
        while left > 0:
            data = file.read(min(left, CHUNK))
            if not data:
                return None
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def has(path, sha256, size=None):
    """Whether a file is here and begins with, or is, what it should be."""
    try:
        return os.path.isfile(path) and hash_of(path, size) == sha256
    except OSError:
        return False


def has_all(folder, wheels):
    """Whether a folder has all its files, as they should be. Wheels come with CRC-32, which costs less than SHA-256."""
    files = [(inside(folder, path), size, crc) for places in wheels.values() for path, (_, size, crc) in places.items()]
    try:
        return all(os.path.getsize(path) == size for path, size, _ in files) and all(
            crc_of(path) == crc for path, _, crc in files
        )
    except OSError:
        return False


def crc_of(path):
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            crc = zlib.crc32(data, crc)
    return crc


def leads_to(link, target):
    """Whether there is this symbolic link."""
    return os.path.islink(link) and os.readlink(link) == target


def missing(root, files, folders, links=(), results=None):
    """Which of all these are to be sent or made, and whether the results here continue those of the host."""
    answer = {
        "files": [path for path, sha256 in files.items() if not has(inside(root, path), sha256)],
        "folders": [path for path, wheels in folders.items() if not has_all(inside(root, path), wheels)],
        "links": [path for path in links if not leads_to(inside(root, path), links[path])],
    }
    if results is not None:
        answer["results"] = has(inside(root, results["path"]), results["sha256"], results["size"])
    return answer


def inside(root, path):
    """A path within the root. Raises `Refused` for one that would leave it."""
    parts = path.split("/")
    if not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
        raise Refused("the path %r leaves the folder" % path)
    return os.path.join(root, *parts)


# --- taking files in ----------------------------------------------------------------------------------


def receive(root, stream, files, folders, links, size, joined=()):
    """Unpack a compressed tar, and wheels. Nothing gets its name before it is complete and right."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    count = len(files) + sum(len(places) for wheels in folders.values() for places in wheels.values())
    check_space(root, size, count)
    incoming = tempfile.mkdtemp(prefix=INCOMING, dir=root)
    try:
        with locked(incoming):
            got = unpack(root, incoming, stream, files)
            lacking = sorted(set(files) - got)
            if lacking:
                raise Damaged("the transfer ended early: %d files are missing, like %s" % (len(lacking), lacking[0]))
            join(root, incoming, dict(joined))
            for path, target in links.items():
                make_link(root, path, target)
            install(root, incoming, folders)
        return {"received": len(got)}
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def check_space(root, size, count):
    """Refuse now what would fill the disk in the middle."""
    disk = os.statvfs(root)
    if disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if disk.f_files > 0 and disk.f_favail < count:
        raise Refused("the disk is full: %d more files are needed in %s, it takes %d" % (count, root, disk.f_favail))


def unpack(root, incoming, stream, expected):
    """The files of a tar, each into its place when it is whole and right -> their paths."""
    got = set()
    fresh = os.path.join(incoming, "file")
    with gzip.GzipFile(fileobj=stream, mode="rb") as data, tarfile.open(fileobj=data, mode="r|") as archive:
        for member in archive:
            sha256 = expected.get(member.name)
            if sha256 is None or not member.isfile():
                raise Damaged("an unexpected file was sent: %r" % member.name)
            path = inside(root, member.name)
            if copy(archive.extractfile(member), fresh) != sha256:
                raise Damaged("%s was damaged on the way" % member.name)
            clear_way(root, member.name)
            os.replace(fresh, path)
            got.add(member.name)
    return got


def join(root, incoming, files):
    """Put files together. A piece goes as soon as nothing else needs it: there is no room for everything twice."""
    fresh = os.path.join(incoming, "file")
    left = collections.Counter(inside(root, piece) for _, pieces in files.values() for piece in pieces)
    with locked(root):
        for path, (sha256, pieces) in files.items():
            try:
                with open(fresh, "wb") as file:
                    for piece in [inside(root, piece) for piece in pieces]:
                        append(piece, file)
                        left[piece] -= 1
                        if not left[piece]:
                            os.unlink(piece)
            except FileNotFoundError:
                for piece in left:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(piece)
                raise Overtaken() from None
            if not has(fresh, sha256):
                raise Damaged("%s was damaged on the way" % path)
            clear_way(root, path)
            os.replace(fresh, inside(root, path))


def append(path, file):
    """Copy the file at `path` to the end of an open one."""
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file, CHUNK)


def install(root, incoming, folders):
    """Unpack wheels; who else brings the same to this device waits, and then finds it done."""
    with locked(root):
        lacking = {path: wheels for path, wheels in folders.items() if not has_all(inside(root, path), wheels)}
        for path, wheels in lacking.items():
            for wheel, places in wheels.items():
                try:
                    unpack_wheel(inside(root, wheel), inside(incoming, path), places)
                except (KeyError, zipfile.BadZipFile, zlib.error) as error:  # noqa: PERF203
                    raise Refused("%s is no wheel as it should be: %s" % (wheel, error)) from error
        for wheel in [wheel for wheels in folders.values() for wheel in wheels]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(inside(root, wheel))
        if lacking:
            os.sync()  # after a power cut they would have to come again
        for number, path in enumerate(lacking):
            make_folders(root, path)
            if os.path.lexists(inside(root, path)):
                os.rename(inside(root, path), os.path.join(incoming, "old%d" % number))
            os.rename(inside(incoming, path), inside(root, path))


def unpack_wheel(wheel, folder, places):
    """Put members of a wheel into their places in a folder; each has a checksum, which is looked at."""
    with zipfile.ZipFile(wheel) as archive:
        for place, (member, _, _) in places.items():
            path = inside(folder, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)


def copy(source, path):
    """Write a file -> its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for data in iter(lambda: source.read(CHUNK), b""):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def make_link(root, path, target):
    """A symbolic link, made if it is not there; what stands in its place goes."""
    link = inside(root, path)
    if not leads_to(link, target):
        clear_way(root, path)
        if os.path.lexists(link):
            os.unlink(link)
        with contextlib.suppress(FileExistsError):  # another host was faster
            os.symlink(target, link)


def clear_way(root, path):
    """Make the folders of a file; a folder that a broken file system, or somebody, has put in its place goes."""
    make_folders(root, path)
    if os.path.isdir(inside(root, path)) and not os.path.islink(inside(root, path)):
        shutil.rmtree(inside(root, path))


def make_folders(root, path):
    """The folders that lead to a path; a file that stands in the place of one goes."""
    parts = path.split("/")[:-1]
    for number in range(len(parts)):
        folder = inside(root, "/".join(parts[: number + 1]))
        if os.path.islink(folder) and not os.path.exists(folder):
            raise Refused("%s is a link that leads nowhere" % folder)
        if os.path.exists(folder) and not os.path.isdir(folder):
            os.unlink(folder)
        os.makedirs(folder, exist_ok=True)


# --- the command --------------------------------------------------------------------------------------


class Speaker:
    """Writes the answer, and until then says now and then that it is coming."""

    def __init__(self):
        self.lock = threading.Lock()
        self.done = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self):
        while not self.done.wait(BUSY_EVERY_S):
            self.say({"type": "busy"})

    def say(self, record):
        try:
            with self.lock:
                sys.stdout.buffer.write(json.dumps(record).encode() + b"\n")
                sys.stdout.buffer.flush()
        except OSError:
            os._exit(1)  # nobody listens any more


def answer(request, stream):
    """Do what was asked for."""
    what = request.pop("do")
    root = request["root"] = os.path.abspath(os.path.expanduser(request["root"]))
    try:
        if what == "receive":
            return receive(stream=stream, **request)
        return {"hello": hello, "missing": missing}[what](**request)
    except Refused as error:
        return {"error": str(error)}
    except Overtaken:
        return {"again": True}
    except Damaged as error:
        return {"error": str(error), "again": True}
    except (EOFError, zlib.error, tarfile.TarError) as error:
        return {"error": DAMAGED % error, "again": True}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(root).free // (1 << 20)
            need = -(-request.get("size", 0) // (1 << 20))
            return {"error": "the disk is full: %d MB are needed in %s, %d MB are free" % (need, root, free)}
        if error.errno is None:  # it comes from `gzip`, not from the system
            return {"error": DAMAGED % error, "again": True}
        return {"error": "%s: %s" % (error.strerror or error, error.filename or root)}


def main():
    """Answer one request."""
    os.umask(0o077)
    speaker = Speaker()
    stream = sys.stdin.buffer
    sha256, _, words = stream.readline().rstrip(b"\n").partition(b" ")
    if hashlib.sha256(words).hexdigest().encode() == sha256:
        reply = answer(json.loads(words.decode()), stream)
    else:
        reply = {"error": "the request was damaged on the way", "again": True}
    speaker.done.set()
    speaker.say(dict(reply, type="store"))


if __name__ == "__main__":
    main()
