"""A kit that brings its runtime along, for a board that has none and cannot fetch it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.kits import QUICK, STUB_NUMPY, STUB_RUNTIME, bytes_model, records, run_agent
from support.wheels import make_wheel, take_for_the_world

from device_agents.ofa_agent.wheels import installed, python_tag
from ofa_profiler.cli import profile as cli
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.wheels import _installed
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.kit import KitWheels, run_record, write_kit

HERE = python_tag()
PYTHON = HERE.rpartition("-")[2]


def stub_wheels(folder: Path, tag: str) -> list[Path]:
    """onnxruntime and numpy that need no time, the first in the place for packages without compiled parts."""
    moved = {"onnxruntime-1.19.0.data/purelib/onnxruntime.py": STUB_RUNTIME, "onnxruntime-1.19.0.data/scripts/run": ""}
    return [
        make_wheel(folder, tag, files=moved),
        make_wheel(folder, tag, name="numpy", version="2.0.2", files={"numpy.py": STUB_NUMPY}),
    ]


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit for this very Python."""
    models = [bytes_model(tmp_path / "models", f"op {n}", b"run %d" % n) for n in range(2)]
    wheels = KitWheels(HERE, stub_wheels(tmp_path / "wheels", "py3-none-any"))
    write_kit(tmp_path / "kit", models, run_record(models, QUICK, {}), wheels=wheels)
    return tmp_path / "kit"


def change_manifest(kit: Path, **wheels: Any) -> None:
    manifest = json.loads((kit / "manifest.json").read_text())
    manifest["wheels"].update(wheels)
    (kit / "manifest.json").write_text(json.dumps(manifest))


def folders(kit: Path) -> list[str]:
    return sorted(path.name for path in kit.iterdir() if path.is_dir())


@pytest.mark.parametrize("how", [[], ["--no-fork"]], ids=["forked", "spawned"])
def test_its_runtime_is_unpacked_once_and_used(kit: Path, how: list[str]) -> None:
    done = run_agent(kit, *how)
    assert done.returncode == 0, done.stderr
    device = next(record for record in records(done.stdout) if record["type"] == "device")
    assert device["runtime"]["version"] == "0.0-stub", "and not the one of this Python"
    (runtime,) = kit.glob("runtime-*")
    assert folders(kit) == ["models", "ofa_agent", runtime.name, "wheels"]
    assert not list(runtime.rglob("run")), "scripts are no part of a package"
    before = runtime.stat().st_ino
    (kit / "results.jsonl").unlink()
    (kit / "wheels" / "numpy-2.0.2-py3-none-any.whl").unlink()  # no longer needed
    assert run_agent(kit, *how).returncode == 0
    assert runtime.stat().st_ino == before


def test_its_readme_says_what_it_needs(kit: Path) -> None:
    machine, _, python = HERE.rpartition("-cp3")
    assert f"Python 3.{python} on {machine} (the runtime is in `wheels/`)" in (kit / "README.md").read_text()


def test_another_python_is_told_what_to_ask_for(kit: Path) -> None:
    change_manifest(kit, **{"for": "aarch64-cp39"})
    done = run_agent(kit)
    assert done.returncode == 1
    assert f"are for aarch64-cp39, but this Python is {HERE}; give that to ofa-profile --wheels" in done.stderr
    assert folders(kit) == ["models", "ofa_agent", "wheels"]


@pytest.mark.parametrize("damage", ["cut", "gone", "no wheel"])
def test_a_damaged_wheel_is_told_and_leaves_nothing(kit: Path, damage: str) -> None:
    wheel = kit / "wheels" / "onnxruntime-1.19.0-py3-none-any.whl"
    if damage == "gone":
        wheel.unlink()
    else:
        data = wheel.read_bytes()[:-10]
        wheel.write_bytes(data)
        if damage == "no wheel":
            change_manifest(kit, files={wheel.name: hashlib.sha256(data).hexdigest()})
    done = run_agent(kit)
    assert done.returncode == 1
    assert done.stderr.startswith("agent: the wheels of this kit cannot be unpacked: ")
    assert len(done.stderr.splitlines()) == 1
    assert folders(kit) == ["models", "ofa_agent", "wheels"]


def test_a_manifest_that_is_damaged_there_is_told(kit: Path) -> None:
    change_manifest(kit, files=7)
    done = run_agent(kit)
    assert done.returncode == 1
    assert "manifest.json cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


parts = st.sampled_from(["numpy", "x.data", "purelib", "platlib", "scripts", "a.py", "..", ".", ""])


@given(st.lists(parts, min_size=1, max_size=5).map("/".join))
@example("x.data/purelib/")
@example("/numpy/a.py")
def test_the_agent_and_the_host_agree_on_where_a_file_is_installed(member: str) -> None:
    ours = installed(member)
    theirs = _installed(member)
    if ours is not None:
        assert "/".join(ours) == theirs
    elif theirs is not None:  # names that no wheel has, which the host writes in another way
        assert not all(member.split("/")) or "." in member.split("/")


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_packs_what_fits_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_for_the_world(tmp_path / "index", monkeypatch)
    monkeypatch.setenv("OFA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stub_wheels(tmp_path / "index", "cp39-cp39-manylinux_2_28_aarch64")
    stub_wheels(tmp_path / "index", "cp310-cp310-manylinux_2_28_aarch64")
    words = ["--kit", str(tmp_path / "kit"), "--resolution", "24", "--wheels", "aarch64-cp39"]
    assert cli.main(words) == 0
    wheels = json.loads((tmp_path / "kit" / "manifest.json").read_text())["wheels"]
    assert wheels["for"] == "aarch64-cp39"
    assert sorted(wheels["files"]) == sorted(path.name for path in (tmp_path / "kit" / "wheels").iterdir())
    assert [name.split("-")[0] for name in sorted(wheels["files"])] == ["numpy", "onnxruntime"]


def test_without_wheels_for_the_board_there_is_no_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index").mkdir()
    take_for_the_world(tmp_path / "index", monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["--kit", str(tmp_path / "kit"), "--resolution", "24", "--wheels", "aarch64-cp39"]
    assert cli.main(words) == 4
    assert "install the runtime on the board and omit --wheels" in capsys.readouterr().err
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    "tag", ["", "aarch64", "cp311", "aarch64-cp36", "aarch64-cp2", "a b-cp311", "aarch64-cp311-musl"]
)
def test_what_names_no_python_is_refused(tag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="like aarch64-cp311"):
        Board.from_tag(tag)
    assert cli.main(["--kit", str(tmp_path / "kit"), "--wheels", tag]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_wheels_go_with_a_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--device", "local", "--out", str(tmp_path), "--wheels", HERE]) == 2
    assert "--wheels needs --kit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tag", "abi", "oldest"),
    [("aarch64-cp311", "cp311", "2_31"), ("armv7l-cp37", "cp37m", "2_31"), ("x86_64-cp313-glibc2.36", "cp313", "2_36")],
)
def test_a_tag_names_a_python_and_the_oldest_c_library(tag: str, abi: str, oldest: str) -> None:
    board = Board.from_tag(tag)
    assert (board.abi, board.platforms[0]) == (abi, f"manylinux_{oldest}_{board.machine}")
    assert tag.startswith(board.tag)


def test_the_tag_of_this_python() -> None:
    assert HERE.endswith(f"-cp{sys.version_info[0]}{sys.version_info[1]}")
    assert Board.from_tag(HERE).tag == HERE
