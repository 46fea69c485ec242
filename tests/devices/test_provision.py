"""Wheels for a board: the right ones, by the real pip, from a folder of wheels that stands for the index."""

from __future__ import annotations

import json
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import parse_tag
from packaging.utils import parse_wheel_filename
from support.wheels import make_wheel, take_for_the_world

from ofa_profiler.base.files import remove
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.wheels import Wheels, find_wheels
from ofa_profiler.errors import DeviceError

HELLO = {
    "root": "/home/pi/.ofa-profiler",
    "machine": "aarch64",
    "libc": "glibc",
    "libc_version": "2.31",
    "implementation": "CPython",
    "python": [3, 9],
    "abi": "cp39",
}
BOARD = Board.from_record("ssh:pi@board", HELLO)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole world."""
    folder = tmp_path / "index"
    folder.mkdir()
    take_for_the_world(folder, monkeypatch)
    make_wheel(folder, "cp39-cp39-manylinux_2_17_aarch64", name="numpy", version="2.0.2")
    return folder


def test_the_newest_wheels_that_fit_are_taken(index, tmp_path):
    make_wheel(index, "cp39-cp39-manylinux_2_27_aarch64.manylinux_2_28_aarch64", version="1.19.0")
    make_wheel(index, "cp39-cp39-manylinux_2_17_aarch64.manylinux2014_aarch64", version="1.18.0")
    make_wheel(index, "cp39-cp39-manylinux_2_34_aarch64", version="1.20.0")  # its C library is too old for these
    make_wheel(index, "cp310-cp310-manylinux_2_28_aarch64", version="1.21.0")
    make_wheel(index, "cp39-cp39-manylinux_2_28_x86_64", version="1.22.0")
    wheels = find_wheels("onnxruntime", BOARD, tmp_path / "cache")
    assert wheels.versions == "numpy 2.0.2, onnxruntime 1.19.0"
    places = {place: found for content in wheels.contents.values() for place, found in content.items()}
    assert places["onnxruntime/__init__.py"][:2] == ("onnxruntime/__init__.py", len("version = '1.19.0'"))
    assert places["onnxruntime/tools.py"][0] == "onnxruntime-1.19.0.data/purelib/onnxruntime/tools.py"
    assert not any("data" in place or "script" in place for place in places)
    assert wheels.size == sum(size for _, size, _ in places.values())


def test_what_was_fetched_once_needs_no_index(index, tmp_path, monkeypatch):
    path = make_wheel(index, "cp39-cp39-manylinux_2_28_aarch64")
    said: list[str] = []
    first = find_wheels("onnxruntime", BOARD, tmp_path / "cache", said.append)
    path.unlink()
    again = find_wheels("onnxruntime", BOARD, tmp_path / "cache", said.append)
    assert said == ["downloading onnxruntime for Python 3.9 on aarch64 (glibc 2.31) into the cache"], (
        "and no second time"
    )
    assert (again.name, again.paths) == (first.name, first.paths)
    again.paths[0].write_bytes(b"damaged")
    with pytest.raises(DeviceError, match="no wheels of onnxruntime"):
        find_wheels("onnxruntime", BOARD, tmp_path / "cache")


@pytest.mark.slow
def test_a_damaged_cache_is_filled_again(index, tmp_path):
    make_wheel(index, "cp39-cp39-manylinux_2_28_aarch64")
    first = find_wheels("onnxruntime", BOARD, tmp_path / "cache")
    folder = first.paths[0].parent
    name = first.name

    def harm(path: Path, data: bytes | None) -> None:
        """None: a folder in its place."""
        remove(path)
        if data is None:
            (path / "x").mkdir(parents=True)
        else:
            path.write_bytes(data)

    for path in (first.paths[0], folder / "wheels.json", folder):
        for data in (b"", b"\xff\0", b"[]", b"{}", None):
            harm(path, data)
            again = find_wheels("onnxruntime", BOARD, tmp_path / "cache")
            assert again.name == name, (path, data)
            assert again.contents
    assert len(list((tmp_path / "cache" / "wheels").iterdir())) == 1


@pytest.mark.slow
def test_litert_comes_as_its_predecessor_where_it_has_no_wheels(index, tmp_path):
    """That one was built for numpy 1. What serves neither is one line, about the first of them."""
    make_wheel(index, "cp39-cp39-manylinux_2_27_aarch64", name="ai_edge_litert", version="2.3.0")
    make_wheel(index, "cp39-cp39-manylinux2014_armv7l", name="tflite_runtime", version="2.13.0")
    for version in ("1.26.4", "2.0.2"):
        make_wheel(index, "cp39-cp39-manylinux2014_armv7l", name="numpy", version=version)
    assert find_wheels("litert", BOARD, tmp_path / "c").versions == "ai_edge_litert 2.3.0, numpy 2.0.2"
    old = replace(BOARD, machine="armv7l")
    assert find_wheels("litert", old, tmp_path / "c").versions == "numpy 1.26.4, tflite_runtime 2.13.0"
    with pytest.raises(DeviceError, match=r"no wheels of ai-edge-litert for Python 3\.9 on riscv64") as no:
        find_wheels("litert", replace(BOARD, machine="riscv64"), tmp_path / "c")
    assert "\n" not in str(no.value)


def test_several_boards_of_one_kind_share_a_download(index, tmp_path):
    make_wheel(index, "cp39-cp39-manylinux_2_28_aarch64")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: find_wheels("onnxruntime", BOARD, tmp_path / "cache").name, range(3)))
    assert len(set(found)) == 1
    assert len(list((tmp_path / "cache" / "wheels").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"machine": "armv7l"}, r"no wheels of onnxruntime for Python 3\.9 on armv7l \(glibc 2\.31\).*system"),
        ({"libc": "musl", "libc_version": "1.2.4"}, r"no wheels of onnxruntime .*musl 1\.2"),
        ({"libc": None}, "no wheels of onnxruntime .*unknown"),
        ({"implementation": "PyPy"}, "no wheels of onnxruntime"),
    ],
)
def test_a_board_without_wheels_is_one_clear_line(index, tmp_path, change, words):
    make_wheel(index, "cp39-cp39-manylinux_2_28_aarch64")
    with pytest.raises(DeviceError, match=words) as no:
        find_wheels("onnxruntime", Board.from_record("x", {**HELLO, **change}), tmp_path / "cache")
    assert "\n" not in str(no.value)
    assert not list((tmp_path / "cache").glob("**/wheels.json"))


def test_without_pip_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DeviceError, match=r"cannot download onnxruntime for Python 3\.9 on aarch64"):
        find_wheels("onnxruntime", BOARD, tmp_path)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({**HELLO, "python": [3, 6]}, r"3\.6, the agent needs 3\.7"),
        ({**HELLO, "python": ["3", "9"]}, "does not report its Python"),
        ({**HELLO, "root": "relative"}, "does not report its folder"),
        ({}, "does not report its folder"),
    ],
)
def test_a_board_must_say_what_it_is(record, words):
    with pytest.raises(DeviceError, match=words):
        Board.from_record("ssh:x", record)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda more: st.lists(more, max_size=3))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(HELLO, JSON)))
def test_whatever_a_board_says_it_is_a_board_or_an_error(record: dict[str, Any]):
    try:
        board = Board.from_record("ssh:x", {**HELLO, **record})
    except DeviceError:
        return
    assert board.root.startswith("/")
    for platform in board.platforms:
        assert platform.isascii()
        assert platform.replace("_", "").isalnum(), "it becomes a word of a command and a part of a path"
    assert json.dumps(record)


@pytest.mark.parametrize("minor", [16, 17, 27, 28, 36])
def test_platforms_are_those_of_this_c_library_or_older(minor):
    board = replace(BOARD, libc_version=(2, minor))
    tags = {tag.platform for name in board.platforms for tag in parse_tag(f"cp39-cp39-{name}")}
    assert ("manylinux_2_28_aarch64" in tags) == (minor >= 28)
    assert ("manylinux2014_aarch64" in tags) == (minor >= 17)
    assert f"manylinux_2_{minor + 1}_aarch64" not in tags


def test_the_folder_on_the_device_stands_for_the_content(tmp_path):
    one = make_wheel(tmp_path / "a", "cp39-cp39-linux_aarch64")
    other = make_wheel(tmp_path / "b", "cp39-cp39-linux_aarch64")
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("onnxruntime/more.py", "")
    assert Wheels("onnxruntime", (one,)).name != Wheels("onnxruntime", (other,)).name
    assert parse_wheel_filename(one.name)[0] == "onnxruntime"


def test_a_wheel_cannot_leave_its_folder(tmp_path):
    path = make_wheel(tmp_path, "cp39-cp39-linux_aarch64")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.py", "")
        archive.writestr("/etc/evil.py", "")
    assert not any("evil" in place for places in Wheels("onnxruntime", (path,)).contents.values() for place in places)
