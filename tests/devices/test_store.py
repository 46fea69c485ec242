"""What keeps the files on a device, run as a device runs it: the source and the request through stdin."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.counting import Counting

from ofa_profiler.devices.remote.shell import Process, Shell
from ofa_profiler.devices.remote.sync import ChunkReader, FileSet, Store
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

SOURCE = (Path(__file__).resolve().parents[2] / "device_agents" / "store.py").read_bytes()


class ShProcess(Process):
    """A process of this machine's own shell."""

    def __init__(self, line: str) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def read(self, size: int, timeout_s: float) -> bytes:
        return self.process.stdout.read1(size)

    def write(self, data: bytes) -> None:
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError as error:
            raise DeviceError(str(error)) from None

    def close_input(self) -> None:
        self.process.stdin.close()

    def wait(self) -> int:
        return self.process.wait()

    def last_words(self) -> str:
        return self.process.stderr.read().decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


class ShShell(Shell):
    """This machine as a device."""

    spec = "test"

    def open(self, line: str) -> ShProcess:
        return ShProcess(line)

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(ShShell(), [sys.executable], str(tmp_path / "root"))
    store.prepare()
    return store


def raw(root: Path, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
    """Ask as nobody of ours would."""
    command = [sys.executable, "-c", "import sys;exec(sys.stdin.buffer.read(int(sys.argv[1])))", str(len(SOURCE))]
    words = json.dumps({"root": str(root), **request}).encode()
    line = f"{sha256(words)} ".encode() + words + b"\n"
    done = subprocess.run(command, input=SOURCE + line + data, capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def packed(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as data, tarfile.open(fileobj=data, mode="w|") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return stream.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def receive(root: Path, files: dict[str, bytes], data: bytes, **more: Any) -> dict[str, Any]:
    hashes = {name: sha256(content) for name, content in files.items()}
    return raw(root, {"do": "receive", "files": hashes, "folders": {}, "links": {}, "size": 0, **more}, data)


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_prepare_tells_what_this_python_is(tmp_path):
    told = Store(ShShell(), [sys.executable], str(tmp_path / "ro ot")).prepare()
    assert told["python"] == list(sys.version_info[:2])
    assert told["root"] == str(tmp_path / "ro ot")
    assert told["libc"] in ("glibc", "musl")
    assert (tmp_path / "ro ot").stat().st_mode & 0o777 == 0o700


NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=3,
).map("/".join)


@settings(max_examples=15, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=2000), max_size=4))
def test_whatever_is_brought_is_there_and_is_not_sent_again(tmp_path_factory, files):
    # A path cannot be a file and a folder.
    files = {name: data for name, data in files.items() if not any(other.startswith(name + "/") for other in files)}
    root = tmp_path_factory.mktemp("device")
    store = Store(ShShell(), [sys.executable], str(root))
    assert store.upload(FileSet(files)) == len(files)
    assert tree(root) == files
    assert store.upload(FileSet(files)) == 0


SOME = os.urandom(1 << 20)
LARGE = {"models/a": SOME + b"a", "models/b": bytes(3 << 20) + SOME * 2 + b"b", "models/c": bytes(1 << 20)}


def test_large_files_come_in_pieces_that_may_be_the_same(store):
    assert store.upload(FileSet(LARGE)) == 3
    assert tree(Path(store.root)) == LARGE
    assert store.upload(FileSet(LARGE)) == 0


def test_pieces_that_are_there_do_not_come_again(store):
    for start in range(0, len(SOME), 1 << 19):  # every other
        piece = SOME[start : start + (1 << 18)]
        here = Path(store.root, "pieces", sha256(piece))
        here.parent.mkdir(exist_ok=True)
        here.write_bytes(piece)
    counted = Counting(store.shell)
    replace(store, shell=counted).upload(FileSet(LARGE))
    assert 3 << 18 < counted.sent < 4 << 18, "one piece of zeros, and two of those that may occur thrice"
    assert tree(Path(store.root)) == LARGE


def test_hosts_that_bring_the_same_large_files_at_once(store):
    """ChunkReader are for all; who finds them used up asks again what is missing."""

    def bring(_: int) -> None:
        while True:
            with contextlib.suppress(TransientDeviceError):
                return store.upload(FileSet(LARGE))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(bring, range(4)))
    assert tree(Path(store.root)) == LARGE


def test_pieces_that_make_another_file(tmp_path):
    pieces = {"pieces/1": b"1", "pieces/2": b"2"}
    joined = {"models/a": [sha256(b"12"), ["pieces/2", "pieces/1"]]}
    assert "damaged" in receive(tmp_path, pieces, packed(pieces), joined=joined)["error"]
    assert not (tmp_path / "models").exists()
    joined = {"models/a": [sha256(b"12"), ["pieces/1", "pieces/3"]]}
    assert receive(tmp_path, pieces, packed(pieces), joined=joined)["again"] is True
    for name in ("../a", "/a"):
        joined = {"models/a": [sha256(b"12"), [name]]}
        assert "leaves the folder" in receive(tmp_path, pieces, packed(pieces), joined=joined)["error"]


class DamagingShell(ShShell):
    """Changes or loses one byte of what is sent."""

    def __init__(self, at: int, lost: bool) -> None:
        self.at, self.lost = at, lost

    def open(self, line: str) -> ShProcess:
        process = super().open(line)
        write = process.write

        def damaged(data: bytes) -> None:
            at, self.at = self.at, self.at - len(data)
            if 0 <= at < len(data):
                data = data[:at] + (b"" if self.lost else bytes([data[at] ^ 4])) + data[at + 1 :]
            write(data)

        process.write = damaged
        return process


@pytest.mark.slow
@settings(max_examples=60)
@given(at=st.integers(0, 40_000), lost=st.booleans())
def test_what_is_damaged_on_the_way_is_worth_another_try(tmp_path_factory, at, lost):
    """The store's own source, what is asked of it, or the files: nothing wrong is taken, nothing is final."""
    files = {f"models/{n}": random.Random(n).randbytes(4000) for n in range(5)}
    store = Store(ShShell(), [sys.executable], str(tmp_path_factory.mktemp("board") / "root"))
    store.prepare()
    with contextlib.suppress(TransientDeviceError):
        replace(store, shell=DamagingShell(at, lost)).upload(FileSet(files))
    assert tree(Path(store.root)).items() <= files.items()
    store.upload(FileSet(files))
    assert tree(Path(store.root)) == files


def test_what_is_damaged_is_sent_again(store):
    files = {"models/a": b"a" * 1000, "models/b": b"b" * 1000}
    store.upload(FileSet(files))
    root = Path(store.root)
    (root / "models/b").write_bytes(b"b" * 999)
    assert store.upload(FileSet(files)) == 1
    assert tree(root) == files


@pytest.mark.parametrize(
    ("there", "kept"), [(None, False), (b"a\nb\nc\n", True), (b"a\nb\n", True), (b"a\n", False), (b"x\nb\nc\n", False)]
)
def test_results_that_go_on_where_ours_end_are_kept(store, there, kept):
    path = Path(store.root) / "results.jsonl"
    if there is not None:
        path.write_bytes(there)
    store.upload(FileSet({}, results=("results.jsonl", b"a\nb\n")))
    assert path.read_bytes() == (there if kept else b"a\nb\n")


def test_nothing_is_half_written_when_the_transfer_ends_early(tmp_path):
    files = {"models/a": b"a" * 1000, "models/b": bytes(range(256)) * 4000}
    whole = packed(files)
    for size in (0, 5, 300, len(whole) // 2, len(whole) * 3 // 4):
        answer = receive(tmp_path, files, whole[:size])
        assert "error" in answer, size
        # What came before the cut is whole, and need not come again.
        assert tree(tmp_path) == ({"models/a": files["models/a"]} if size > 1000 else {})
        assert not list(tmp_path.glob(".*"))
    assert "early" in receive(tmp_path, files, packed({"models/a": files["models/a"]}))["error"]
    assert receive(tmp_path, files, whole) == {"received": 2, "type": "store"}
    assert tree(tmp_path) == files


def test_nothing_is_taken_that_is_wrong(tmp_path):
    files = {"models/a": b"good"}
    assert "damaged" in receive(tmp_path, files, packed({"models/a": b"evil"}))["error"]
    assert "unexpected" in receive(tmp_path, files, packed({**files, "models/b": b""}))["error"]
    link = tarfile.TarInfo("models/a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert "unexpected" in receive(tmp_path, files, packed({}, link))["error"]
    for name in ("../a", "/a", "a/../../b", "a//b", "."):
        assert "leaves the folder" in receive(tmp_path, {name: b"x"}, packed({name: b"x"}))["error"]
    assert "leaves the folder" in raw(tmp_path, {"do": "missing", "files": {"../x": ""}, "folders": {}})["error"]
    assert tree(tmp_path) == files, "what came before is whole"


def wheel_of(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return stream.getvalue()


CONTENT = {"x/__init__.py": b"1" * 5000, "y.py": b"2"}
FOLDERS = {
    "runtimes/r": {"wheels/a.whl": {name: [name, len(data), zlib.crc32(data)] for name, data in CONTENT.items()}}
}
UNPACKED = {f"runtimes/r/{name}": data for name, data in CONTENT.items()}


def test_a_folder_comes_as_a_whole_or_not_at_all(tmp_path):
    good = {"wheels/a.whl": wheel_of(CONTENT)}
    for bad, words in [
        (wheel_of({"y.py": b"2"}), "no item named 'x/__init__.py'"),
        (b"no zip", "not a zip file"),
        (good["wheels/a.whl"].replace(b"y.py2", b"y.py3"), "Bad CRC-32"),
    ]:
        assert (
            words in receive(tmp_path, {"wheels/a.whl": bad}, packed({"wheels/a.whl": bad}), folders=FOLDERS)["error"]
        )
        assert not (tmp_path / "runtimes").exists()
    (tmp_path / "runtimes" / "r" / "x").mkdir(parents=True)  # something damaged
    for _ in range(2):
        assert receive(tmp_path, good, packed(good), folders=FOLDERS)["received"] == 1
        assert tree(tmp_path) == UNPACKED
    assert not list(tmp_path.glob(".incoming*"))


def test_a_folder_that_is_whole_already_stays_as_it_is(tmp_path):
    """Another host may have brought it in the meantime, and may have started an agent with it."""
    good = {"wheels/a.whl": wheel_of(CONTENT)}
    receive(tmp_path, good, packed(good), folders=FOLDERS)
    before = (tmp_path / "runtimes" / "r").stat().st_ino
    assert "error" not in receive(tmp_path, good, packed(good), folders=FOLDERS)
    assert (tmp_path / "runtimes" / "r").stat().st_ino == before


def test_hosts_that_bring_the_same_at_once(tmp_path):
    good = {"wheels/a.whl": wheel_of(CONTENT), "models/a": b"a"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: receive(tmp_path, good, packed(good), folders=FOLDERS), range(4)))
    assert answers == [{"received": 2, "type": "store"}] * 4
    assert tree(tmp_path) == {**UNPACKED, "models/a": b"a"}


def test_what_a_killed_transfer_left_is_removed(store):
    """Whose transfer goes on is told by its lock: clocks jump, and numbers of processes are given again."""
    root = Path(store.root)
    for name in ("dead", "alive"):
        (root / f".incoming-{name}").mkdir()
        os.utime(root / f".incoming-{name}", (0, 0))
    with (root / ".incoming-alive" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.prepare()
    assert [path.name for path in root.glob(".incoming*")] == [".incoming-alive"]


def test_pieces_that_nobody_came_back_for_are_removed(store):
    pieces = Path(store.root, "pieces")
    pieces.mkdir()
    for name, days in (("old", 8), ("new", 6)):
        (pieces / name).write_bytes(b"x")
        then = time.time() - days * 86400
        os.utime(pieces / name, (then, then))
    store.prepare()
    assert [path.name for path in pieces.iterdir()] == ["new"]


def test_modules_of_whoever_lives_there_are_not_taken_for_python_s(tmp_path, monkeypatch):
    for name in ("json", "tarfile", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')")
    monkeypatch.chdir(tmp_path)
    assert Store(ShShell(), [sys.executable], str(tmp_path / "root")).prepare()["root"] == str(tmp_path / "root")


def test_a_file_that_cannot_be_read_here_is_named(store, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"cannot read a file to send: .*folder: Is a directory"):
        store.shell.run(["cat"], ChunkReader(read() for read in [(tmp_path / "folder").read_bytes]))


def test_a_disk_that_takes_no_more_files(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m,nr_inodes=8", "tmpfs", str(tmp_path)], check=True)
    try:
        files = {f"models/{i}": b"x" for i in range(9)}
        answer = receive(tmp_path, files, packed(files))
        assert re.search(r"disk is full: 9 files are needed in .*, \d are free$", answer["error"])
        assert tree(tmp_path) == {}
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_transfer_larger_than_the_disk_is_refused_before_it_starts(tmp_path):
    answer = receive(tmp_path, {"a": b"x"}, packed({"a": b"x"}), size=1 << 60)
    assert "the disk is full: 1099511627776 MB are needed" in answer["error"]
    assert tree(tmp_path) == {}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"(Not a directory|File exists)"):
        Store(ShShell(), [sys.executable], str(tmp_path / "file" / "root")).prepare()


def folder_in(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "x").write_text("")


@pytest.mark.parametrize("place", ["models", "models/a", "kits/k", "kits/k/models", "kits/k/results"])
@pytest.mark.parametrize("thing", ["file", "folder", "link"])
def test_what_stands_in_the_way_goes(store, place, thing):
    """A board that lost its power comes back with a checked file system, and not always with all that it had."""
    wanted = FileSet(
        {"models/a": b"a", "kits/k/m": b"m"}, {"kits/k/models": "../../models"}, results=("kits/k/results", b"1\n")
    )
    store.upload(wanted)
    before = tree(Path(store.root))
    path = Path(store.root, place)
    subprocess.run(["rm", "-r", str(path)], check=True)
    if thing == "folder":
        folder_in(path)
    elif thing == "file":
        path.write_text("x")
    else:
        path.symlink_to("/no/where")
    if thing == "link" and place in ("models", "kits/k"):  # somebody's disk that is not mounted
        with pytest.raises(DeviceError, match=f"{place} is a link that leads nowhere"):
            store.upload(wanted)
        return
    store.upload(wanted)
    assert {name: data for name, data in tree(Path(store.root)).items() if not name.endswith("/x")} == before
    assert str(Path(store.root, "kits/k/models").readlink()) == "../../models"
    assert store.upload(wanted) == 0


def test_a_private_folder_that_is_none(tmp_path):
    for number, make in enumerate([Path.touch, lambda path: path.symlink_to("/no/where")]):
        make(tmp_path / str(number))
        with pytest.raises(DeviceError, match="exists and is not a folder"):
            Store(ShShell(), [sys.executable], str(tmp_path / str(number))).prepare()


def test_a_private_folder_that_cannot_be_written(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o500)
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(root)], check=True)
    try:
        with pytest.raises(DeviceError, match=r"cannot write to the folder .*root: it has another owner, or"):
            Store(ShShell(), [sys.executable], str(root)).prepare()
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(root)], check=True)
