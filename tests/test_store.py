"""What keeps the files on a device, run as a device runs it: the source and the request through stdin."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler.devices.shell import Process, Shell
from ofa_profiler.devices.store import Parcel, Store
from ofa_profiler.errors import DeviceError

SOURCE = (Path(__file__).resolve().parents[1] / "device_agents" / "store.py").read_bytes()


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
    store.hello()
    return store


def raw(root: Path, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
    """Ask as nobody of ours would."""
    command = [sys.executable, "-c", "import sys;exec(sys.stdin.buffer.read(int(sys.argv[1])))", str(len(SOURCE))]
    words = json.dumps({"root": str(root), **request}).encode() + b"\n"
    done = subprocess.run(command, input=SOURCE + words + data, capture_output=True, check=True)
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
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_hello_tells_what_this_python_is(tmp_path):
    told = Store(ShShell(), [sys.executable], str(tmp_path / "ro ot")).hello()
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
    assert (store.bring(Parcel(files)) > 0) == bool(files)
    assert tree(root) == files
    assert store.bring(Parcel(files)) == 0


def test_what_is_damaged_is_sent_again(store):
    files = {"models/a": b"a" * 1000, "models/b": b"b" * 1000}
    store.bring(Parcel(files))
    root = Path(store.root)
    (root / "models/b").write_bytes(b"b" * 999)
    assert 0 < store.bring(Parcel(files)) < 400
    assert tree(root) == files


@pytest.mark.parametrize(
    ("there", "kept"), [(None, False), (b"a\nb\nc\n", True), (b"a\nb\n", True), (b"a\n", False), (b"x\nb\nc\n", False)]
)
def test_results_that_go_on_where_ours_end_are_kept(store, there, kept):
    path = Path(store.root) / "results.jsonl"
    if there is not None:
        path.write_bytes(there)
    store.bring(Parcel({}, results=("results.jsonl", b"a\nb\n")))
    assert path.read_bytes() == (there if kept else b"a\nb\n")


def test_nothing_is_half_written_when_the_transfer_ends_early(tmp_path):
    files = {"models/a": b"a" * 1000, "models/b": bytes(range(256)) * 4000}
    whole = packed(files)
    for size in (0, 5, 300, len(whole) // 2, len(whole) * 3 // 4):
        answer = receive(tmp_path, files, whole[:size])
        assert "error" in answer, size
        assert tree(tmp_path) == {}
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
    assert tree(tmp_path) == {}


def test_a_folder_comes_as_a_whole_or_not_at_all(tmp_path):
    content = {"x/__init__.py": b"1", "y.py": b"2"}
    folders = {"runtimes/r": {name: sha256(data) for name, data in content.items()}}
    some = {f"runtimes/r/{name}": data for name, data in content.items()}
    first = dict(list(some.items())[:1])
    assert "early" in receive(tmp_path, {}, packed(first), folders=folders)["error"]
    assert not (tmp_path / "runtimes").exists()
    (tmp_path / "runtimes" / "r" / "x").mkdir(parents=True)  # something damaged
    for _ in range(2):
        assert receive(tmp_path, {}, packed(some), folders=folders)["received"] == 2
    assert tree(tmp_path) == some


def test_what_a_killed_transfer_left_is_removed(store):
    root = Path(store.root)
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (root / f".incoming-{pid}-abc").mkdir()
    store.hello()
    assert [path.name for path in root.glob(".incoming*")] == [f".incoming-{os.getpid()}-abc"]


def test_a_transfer_larger_than_the_disk_is_refused_before_it_starts(tmp_path):
    answer = receive(tmp_path, {"a": b"x"}, packed({"a": b"x"}), size=1 << 60)
    assert "the disk is full: 1099511627776 MB are needed" in answer["error"]
    assert tree(tmp_path) == {}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match=r"(Not a directory|File exists)"):
        Store(ShShell(), [sys.executable], str(tmp_path / "file" / "root")).hello()


def test_it_is_python_3_7():
    import ast

    ast.parse(SOURCE, feature_version=(3, 7))
