"""Why a runtime could not be downloaded: the words of pip and uv, and an environment that lacks pip."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wheels import make_wheel, take_for_the_world

from ofa_profiler.base.releases import Wanted
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.download import NoWheels, explain_pip, explain_uv
from ofa_profiler.devices.remote.repack import repack
from ofa_profiler.devices.remote.wheels import Wheels, find_wheels
from ofa_profiler.errors import DeviceError

BOARD = Board("/", "aarch64", "glibc", (2, 31), "CPython", (3, 9), "cp39")
NONE = "ERROR: No matching distribution found for onnxruntime==1.31.1"
PAGE = "Could not fetch URL https://me:secret@index.example/simple/onnxruntime/: "


def skipped(*tags: str) -> str:
    return "\n".join(f"  Skipping link: none of the wheel's tags ({tag}) are compatible" for tag in tags)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("connection error: NewConnectionError([Errno -3] Temporary failure in name resolution)", "offline"),
        ("connection error: NewConnectionError([Errno 11001] getaddrinfo failed)", "offline"),
        ("connection error: ([Errno 111] Connection refused)", "no connection"),
        ("connection error: ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403'))", "proxy"),
        ("There was a problem confirming the ssl certificate: SSLError(CERTIFICATE_VERIFY_FAILED)", "PIP_CERT"),
        ("401 Client Error: Unauthorized for url", "password"),
        ("503 Server Error: Service Unavailable", "error of its own"),
        ("connection error: ReadTimeoutError(Read timed out.)", "in time"),
        ("something that nobody knows", "something that nobody knows"),
    ],
)
def test_an_index_that_was_not_reached_has_no_less_wheels(reason, words):
    error = explain_pip(f"{PAGE}{reason} - skipping\n{NONE}", "onnxruntime==1.31.1", BOARD)
    assert not isinstance(error, NoWheels)
    assert "the package index index.example was not reached" in str(error)
    assert words in str(error)
    assert "secret" not in str(error)
    assert "no wheels" not in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", r"\(glibc 2\.31\)$"),
        (PAGE + "404 Client Error: Not Found - skipping", r"\(glibc 2\.31\)$"),
        ("ERROR: Could not find a version (from versions: 1.8.0, 1.8.1, 1.16.3)", r"there are 1\.8\.0 to 1\.16\.3"),
        (skipped("cp39-cp39-manylinux_2_34_aarch64"), r"they need glibc 2\.34 or newer"),
        (skipped("cp311-cp311-manylinux_2_28_aarch64", "cp310-cp310-manylinux2014_aarch64"), r"Python 3\.10 to 3\.11"),
        (skipped("cp39-cp39-manylinux_2_28_x86_64", "cp39-cp39-win_amd64"), "none for aarch64"),
        (skipped("cp39-cp39-musllinux_1_2_aarch64"), "none for glibc"),
    ],
)
def test_where_there_are_no_wheels_it_says_what_there_is(said, words):
    error = explain_pip(f"{said}\n{NONE}", "onnxruntime==1.31.1", BOARD)
    assert isinstance(error, NoWheels)
    with pytest.raises(NoWheels, match=words):
        raise error


def test_other_failures_are_told_apart():
    full = explain_pip("ERROR: Could not install: [Errno 28] No space left on device", "numpy", BOARD)
    assert "the disk of this machine is full" in str(full)
    assert "constraints" in str(explain_pip("ERROR: ResolutionImpossible: for help visit", "numpy", BOARD))
    assert "with pip: ERROR: it broke" in str(explain_pip("noise\nERROR: it broke", "numpy", BOARD))


@given(st.text(max_size=300), st.booleans())
def test_whatever_pip_or_uv_says_it_is_one_line(said: str, absent: bool):
    for explain, end in ((explain_pip, NONE), (explain_uv, "No solution found")):
        error = explain(f"{said}\n{end * absent}", "onnxruntime", BOARD)
        assert "onnxruntime" in str(error)
        assert not absent or len(str(error)) < 1000


def test_uv_tells_too():
    offline = "error: Failed to fetch: `https://index.example/simple/numpy/`\n  Caused by: dns error"
    assert "index.example was not reached: no host" in str(explain_uv(offline, "numpy", BOARD))
    absent = "  x No solution found when resolving\n      hint: You require CPython 3.9,\n      but only 3.11"
    error = explain_uv(absent, "numpy", BOARD)
    assert isinstance(error, NoWheels)
    assert str(error).endswith("; You require CPython 3.9, but only 3.11")


# --- without pip --------------------------------------------------------------------------------------


@pytest.fixture
def without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that uv made: no pip. The result is the only folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "v" / "bin" / "python"))
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs


def test_without_pip_and_uv_both_are_named(without_pip, tmp_path):
    with pytest.raises(DeviceError, match=r"neither pip nor uv.*uv pip install pip.*python -m ensurepip") as no:
        find_wheels("onnxruntime", BOARD, tmp_path / "cache")
    assert "\n" not in str(no.value)


def test_without_pip_uv_installs_and_the_result_becomes_wheels(without_pip, tmp_path):
    """This uv does what the real one does with `--target`; it notes its arguments."""
    program = without_pip / "uv"
    program.write_text(
        f"""#!{sys._base_executable}
import pathlib, sys
words = sys.argv[1:]
with open({str(tmp_path / "asked")!r}, "a") as file:
    print(*words, file=file)
target, (name, version) = pathlib.Path(words[words.index("--target") + 1]), (
    ("onnxruntime", "1.20.1") if words[-1].startswith("onnxruntime") else ("numpy", "2.0.2"))
info = f"{{name}}-{{version}}.dist-info"
files = {{f"{{name}}/__init__.py": "x = 1", f"{{info}}/METADATA": "Name: x", f"{{info}}/INSTALLER": "uv",
         "bin/tool": "#!"}}
for place, text in files.items():
    (target / place).parent.mkdir(parents=True, exist_ok=True)
    (target / place).write_text(text)
(target / info / "RECORD").write_text("".join(f"{{place}},,\\n" for place in [*files, "../../bin/other"]))
"""
    )
    program.chmod(0o755)
    wanted = Wanted(asked="1.20")
    first = find_wheels("onnxruntime", BOARD, tmp_path / "cache", wanted=wanted)
    assert (first.version, first.versions) == ("1.20.1", "numpy 2.0.2, onnxruntime 1.20.1")
    assert {place for content in first.contents.values() for place in content} == {
        "onnxruntime/__init__.py", "onnxruntime-1.20.1.dist-info/METADATA",
        "numpy/__init__.py", "numpy-2.0.2.dist-info/METADATA",
    }  # fmt: skip
    again = find_wheels("onnxruntime", BOARD, tmp_path / "other", wanted=wanted)
    assert again.name == first.name, "the same files are the same wheels"
    asked = (tmp_path / "asked").read_text().splitlines()[0]
    assert "--python-platform=aarch64-manylinux_2_31 --python-version=3.9 onnxruntime==1.20.*" in asked
    assert "--only-binary=:all:" in asked
    with pytest.raises(DeviceError, match=r"uv cannot choose wheels for .* armv7l"):
        find_wheels("onnxruntime", Board.from_tag("armv7l-cp39"), tmp_path / "cache")


def test_only_members_of_packages_are_packed(tmp_path):
    info = tmp_path / "in" / "a-1.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "in" / "a.py").write_text("x")
    (tmp_path / "secret").write_text("x")
    (info / "RECORD").write_text('a.py,sha256=x,1\n../secret,,\n"quoted, name.py",,\nbin/a,,\n')
    repack(tmp_path / "in", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "a-1-py3-none-any.whl") as wheel:
        assert wheel.namelist() == ["a.py"]


# --- which release ------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    take_for_the_world(folder, monkeypatch)
    for version in ("1.16.3", "1.18.0", "1.19.0", "1.20.0", "1.20.1", "1.21.0"):
        make_wheel(folder, "cp39-cp39-manylinux_2_17_aarch64", version=version)
    for version in ("1.26.4", "2.0.2"):
        make_wheel(folder, "cp39-cp39-manylinux_2_17_aarch64", name="numpy", version=version)
    return folder


@pytest.mark.slow
def test_x_y_is_its_newest_and_the_preferred_one_comes_if_it_is_there(index, tmp_path):
    def found(**wanted: str) -> str:
        return find_wheels("onnxruntime", BOARD, tmp_path / "cache", wanted=Wanted(**wanted)).versions

    assert found(asked="1.20") == "numpy 2.0.2, onnxruntime 1.20.1"
    assert found(preferred="1.20.0") == "numpy 2.0.2, onnxruntime 1.20.0"
    assert found(preferred="1.31.1") == "numpy 2.0.2, onnxruntime 1.21.0"
    assert found(preferred="1.21.0", below="1.20") == "numpy 2.0.2, onnxruntime 1.19.0"
    assert found(preferred="1.21.0", at_most="1.20.0") == "numpy 2.0.2, onnxruntime 1.20.0"
    assert found(asked="1.18") == "numpy 1.26.4, onnxruntime 1.18.0", "releases before 1.19 cannot be used with numpy 2"
    with pytest.raises(NoWheels, match=r"of onnxruntime==1\.17\.\* for .*there are 1\.16\.3 to 1\.21\.0") as no:
        found(asked="1.17")
    assert "\n" not in str(no.value)


@pytest.mark.slow
def test_what_a_constraint_chose_is_not_taken_without_it(index, tmp_path, monkeypatch):
    def found() -> str:
        return find_wheels("onnxruntime", BOARD, tmp_path / "cache", wanted=Wanted(preferred="1.20.1")).version

    pin = tmp_path / "pin"
    monkeypatch.setenv("PIP_CONSTRAINT", str(pin))
    for release in ("1.19.0", "1.20.0"):
        pin.write_text(f"onnxruntime=={release}\n")
        assert found() == release
    monkeypatch.delenv("PIP_CONSTRAINT")
    assert found() == "1.20.1"


def test_a_free_threaded_python_gets_no_wheels_of_the_stable_abi(index, tmp_path):
    """They load only where there is a global lock."""
    make_wheel(index, "cp39-abi3-manylinux_2_17_aarch64", version="1.22.0")
    make_wheel(index, "cp313-cp313t-manylinux_2_17_aarch64", version="1.20.1")
    make_wheel(index, "cp313-cp313t-manylinux_2_17_aarch64", name="numpy", version="2.2.0")
    board = Board.from_tag("aarch64-cp313t")
    assert (board.tag, str(board)) == ("aarch64-cp313t", "Python 3.13t on aarch64 (glibc 2.31)")
    with contextlib.suppress(NoWheels):  # what pip makes of it depends on its version
        assert find_wheels("onnxruntime", board, tmp_path / "c").version == "1.20.1"


def test_boards_of_few_get_a_hint(index, tmp_path):
    musl = Board("/", "x86_64", "musl", (1, 2), "CPython", (3, 12), "cp312")
    with pytest.raises(NoWheels, match=r"apk add py3-onnxruntime.*--runtime-on-board system"):
        find_wheels("onnxruntime", musl, tmp_path / "c")
    make_wheel(index, "cp311-cp311-manylinux_2_17_armv7l", name="tflite_runtime", version="2.14.0")
    small = Board.from_tag("armv7l-cp311")
    with pytest.raises(NoWheels, match=r"--runtime litert, Python up to 3\.11"):
        find_wheels("onnxruntime", small, tmp_path / "c")
    with pytest.raises(NoWheels, match=r"ai-edge-litert .*nor of numpy<2, which tflite-runtime needs"):
        find_wheels("litert", small, tmp_path / "c")


def test_the_release_is_that_of_the_runtime_not_of_numpy(tmp_path):
    paths = [make_wheel(tmp_path, "py3-none-any", name=name, version=version)
             for name, version in (("numpy", "2.0.2"), ("ai_edge_litert", "2.3.0"))]  # fmt: skip
    assert Wheels("litert", tuple(paths)).version == "2.3.0"
