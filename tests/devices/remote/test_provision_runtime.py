"""A runtime is brought to a board that runs there: the release that was asked for, or the newest one that loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kits import QUICK, bytes_model
from support.runtimes import make_numpy, make_release
from support.sshd import Me, Sshd, spec_of
from support.wheels import take_for_the_world

from ofa_profiler.devices import Device, DeviceOptions, FakeDevice, open_device
from ofa_profiler.devices.comparison import prepare_runtimes
from ofa_profiler.errors import DeviceError, OfaError, UsageError
from ofa_profiler.measuring.session import measure


@pytest.fixture
def index(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of made-up releases, which pip takes for the index, and an empty board."""
    folder = tmp_path / "index"
    take_for_the_world(folder, monkeypatch)
    monkeypatch.setenv("OFA_CACHE_DIR", str(tmp_path / "cache"))
    make_numpy(folder)
    return folder


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def board(ssh_server: Sshd, me: Me, index: Path, told: list[str]) -> Iterator[str]:
    return spec_of(ssh_server)


def prepared(board: str, told: list[str], **options: str) -> str | None:
    with open_device(board, DeviceOptions(tell=told.append, **options)) as device:  # type: ignore[arg-type]
        return device.prepare_runtime("onnxruntime")


@pytest.mark.slow
def test_a_release_that_does_not_load_is_followed_by_the_one_before(board, index, told, tmp_path):
    make_release(index, "1.21.1", "SIGILL")
    make_release(index, "1.21.0")  # of the same minor release: the fault is in this one, too
    make_release(index, "1.20.1", "glibc")
    make_release(index, "1.19.2")
    with open_device(board, DeviceOptions(like_release="1.21.1", tell=told.append)) as device:
        assert device.prepare_runtime("onnxruntime") == "1.19.2"
        found = measure(device, [bytes_model(tmp_path / "m", "op", b"ok")], QUICK)
    assert found["op"].ok
    notes = [line for line in told if "does not run there" in line]
    assert [line.partition(" (")[0] for line in notes] == [
        f"{board}: onnxruntime {version} does not run there" for version in ("1.21.1", "1.20.1")
    ]
    assert "SIGILL" in notes[0]
    assert "GLIBC_2.38" in notes[1]


@pytest.mark.slow
def test_a_release_that_was_asked_for_is_not_replaced(board, index, told):
    make_release(index, "1.21.0", "abort")
    make_release(index, "1.20.1")
    with pytest.raises(
        DeviceError, match=r"1\.21\.0 does not run there .*no core of that number.*--runtime-version"
    ) as no:
        prepared(board, told, runtime_version="1.21")
    assert "\n" not in str(no.value)
    assert prepared(board, told, runtime_version="1.20") == "1.20.1"


@pytest.mark.slow
def test_the_number_of_releases_is_bounded(board, index, told):
    for minor in range(10, 22):
        make_release(index, f"1.{minor}.0", "system")
    with pytest.raises(DeviceError, match=r"1\.21\.0 does not run there .*, nor do the 3 before it; --runtime-version"):
        prepared(board, told)
    assert sum("trying" in line for line in told) == 3


def test_when_there_is_no_older_release(board, index, told):
    make_release(index, "1.21.0", "SIGSEGV")
    with pytest.raises(DeviceError, match=r"1\.21\.0 does not run there .*no older release: there are no wheels of"):
        prepared(board, told)


@pytest.mark.parametrize(("fault", "words"), [("noexec", "--folder-on-board DIR moves"), ("memory", "close other")])
def test_what_no_release_can_help_ends_at_once(board, index, told, store, fault, words):
    make_release(index, "1.21.0", fault)
    make_release(index, "1.20.0")
    with pytest.raises(DeviceError, match=words) as no:
        prepared(board, told)
    assert fault != "noexec" or str(store) in str(no.value)


def test_the_folder_on_the_board_is_a_choice(board, index, told, store, tmp_path):
    make_release(index, "1.21.0")
    assert prepared(board, told, folder_on_board=str(tmp_path / "else where")) == "1.21.0"
    assert (tmp_path / "else where" / "runtimes").is_dir()
    assert not store.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="is not a folder"):
        prepared(board, told, folder_on_board=str(tmp_path / "file"))
    with pytest.raises(UsageError, match="--folder-on-board is for boards"):
        open_device("local", DeviceOptions(folder_on_board="/x"))


def test_the_boards_own_runtime_is_left_alone(board, index, told, ssh_server, monkeypatch):
    make_release(index, "1.21.0")
    broken = ssh_server.folder / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "onnxruntime.py").write_text("import sys; sys.exit('no licence')")
    program = ssh_server.folder / "bin" / "python3"
    before = program.read_text()
    program.write_text(before.replace("exec", f"export PYTHONPATH={broken}\nexec"))
    try:
        with pytest.raises(DeviceError, match="no licence; install or repair onnxruntime there, or omit --runtime-on"):
            prepared(board, told, runtime_on_board="system")
    finally:
        program.write_text(before)
    assert not told
    with pytest.raises(UsageError, match="give one of them"):
        DeviceOptions(runtime_on_board="system", runtime_version="1.20")


@pytest.mark.slow
def test_this_machines_release_comes_unless_there_is_no_wheel(board, index, told, monkeypatch):
    monkeypatch.setattr("ofa_profiler.runtimes.Runtime.installed_release", "1.20.0")
    make_release(index, "1.21.0")
    assert prepared(board, told) == "1.21.0"
    (note,) = [line for line in told if line.startswith("note")]
    assert note.startswith("note: pip finds no wheel of onnxruntime 1.20.0 for Python")
    assert note.endswith("so 1.21.0 is brought; --runtime-version chooses another")
    make_release(index, "1.19.0")
    monkeypatch.setattr("ofa_profiler.runtimes.Runtime.installed_release", "1.19.0")
    assert prepared(board, told) == "1.19.0"


def test_local_has_the_release_that_it_has(monkeypatch):
    monkeypatch.setattr("ofa_profiler.runtimes.Runtime.installed_release", "1.20.1")
    assert open_device("local").prepare_runtime("onnxruntime") == "1.20.1"
    assert open_device("local", DeviceOptions(runtime_version="1.20")).prepare_runtime("onnxruntime") == "1.20.1"
    with pytest.raises(UsageError, match=r"1\.20\.1 installed here.*pip install 'onnxruntime==1\.21\.\*'"):
        open_device("local", DeviceOptions(runtime_version="1.21")).prepare_runtime("onnxruntime")


# --- several devices ----------------------------------------------------------------------------------


class Board(FakeDevice):
    """It runs some releases; the newest that is not excluded is brought."""

    def __init__(self, *releases: str, brought: bool = True) -> None:
        object.__setattr__(self, "releases", releases)
        object.__setattr__(self, "brought", brought)

    @property
    def chooses_release(self) -> bool:
        return self.brought

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:
        for release in self.releases:
            if at_most is None or release <= at_most:
                return release
        raise DeviceError("none is left")


def agreed(**devices: Device) -> tuple[dict[str, str | OfaError | None], list[str]]:
    told: list[str] = []
    return prepare_runtimes(devices, "onnxruntime", told.append), told


def test_several_boards_get_the_newest_release_that_runs_on_all():
    versions, told = agreed(a=Board("1.22", "1.21", "1.19"), b=Board("1.21", "1.19"), c=Board("1.20", "1.19"))
    assert set(versions.values()) == {"1.19"}
    assert told[-1] == "note: onnxruntime 1.19 is the newest release that runs on all boards, so all of them get it"
    versions, told = agreed(a=Board("1.22"), b=Board("1.22"))
    assert set(versions.values()) == {"1.22"}
    assert not told


def test_a_board_that_fails_does_not_stop_the_others():
    versions, _ = agreed(a=Board("1.22", "1.20"), b=Board(), c=Board("1.20"))
    assert isinstance(versions.pop("b"), DeviceError)
    assert versions == {"a": "1.20", "c": "1.20"}


def test_different_releases_of_their_own_are_said():
    _, told = agreed(local=Board("1.22", brought=False), b=Board("1.21"), fake=FakeDevice())
    assert told == [
        "note: the devices have different releases of onnxruntime (local: 1.22, b: 1.21): "
        "their tables compare these, too"
    ]
