"""`--acquire` and `--release`: real commands around a device, whatever happens between them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ofa_profiler.base.registry import Registry
from ofa_profiler.cli import lending_commands, profile, verify
from ofa_profiler.cli.lending import Lending
from ofa_profiler.devices import DeviceKind, DeviceOptions, FakeDevice
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.errors import DeviceError, UsageError
from ofa_search.cli import search

Run = Callable[..., int]
CALLS = "calls.txt"


class Broken(FakeDevice):
    def start(self, kit: Path | None, arguments: Sequence[str]) -> None:
        raise DeviceError("the cable is cut")


def opened(spec: str, _options: DeviceOptions) -> FakeDevice:
    return (Broken if spec.endswith("broken") else FakeDevice)(spec=spec)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with devices `lab:ADDRESS`."""
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("lab", DeviceKind("lab", opened, "lab:ADDRESS"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)
    monkeypatch.setenv("OFA_CACHE_DIR", cache)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(code: str, *words: str) -> str:
    """A command that appends its words and the variable to the file of calls, and then does something else."""
    called = "' '.join([*sys.argv[1:], os.environ['OFA_DEVICE']])"
    program = f"import os, sys, time\nopen({CALLS!r}, 'a').write({called} + chr(10))\n{code}"
    return shlex.join([sys.executable, "-c", program, *words])


ACQUIRE, RELEASE = command("", "acquire", "{device}"), command("", "release", "a b", "{device}")
FAILS = command("print('chatter'); sys.exit('the lab\\nis closed')", "acquire")


def calls() -> list[str]:
    return Path(CALLS).read_text().splitlines() if Path(CALLS).exists() else []


def profiled(*words: str) -> int:
    return profile.main(["--resolution", "24", "--no-calibration", "--out", "out", *words])


@pytest.mark.slow
def test_profile_and_verify_and_search_borrow_their_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lending = ("--acquire", ACQUIRE, "--release", RELEASE)
    around = ["acquire lab:one lab:one", "release a b lab:one lab:one"]
    assert profiled("--device", "lab:one", "--name", "one", *lending) == 0
    assert calls() == around
    assert verify.main(["--lut", "out/one.csv", "--device", "lab:one", "--subnets", "3", *lending]) == 0
    assert calls() == 2 * around
    budget = ("--lut", "out/one.csv", "--budget", "1s", "--predictor", "macs", "--no-export", "--evaluations", "50")
    assert search.main([*budget, "--verify", "lab:one", *lending]) in (0, 5)
    assert calls() == 3 * around
    assert search.main([*budget, *lending]) == 2
    assert profile.main(["--remove-from-device", "--device", "lab:one", *lending]) == 2  # a fake device has no files
    assert calls() == 4 * around


def test_a_failing_acquire_is_one_line_and_nothing_is_released(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profiled("--device", "lab:one", "--acquire", FAILS, "--release", RELEASE) == 4
    assert capsys.readouterr().err == "ofa-profile: --acquire for lab:one failed with exit code 1: the lab is closed\n"
    assert calls() == ["acquire lab:one"]


def test_other_devices_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only_two = command("if sys.argv[2] != 'lab:two': sys.exit('it burns')", "acquire", "{device}")
    words = ("--device", "lab:one", "--device", "lab:two", "--acquire", only_two, "--release", RELEASE)
    assert profiled(*words) == 4
    assert calls() == ["acquire lab:one lab:one", "acquire lab:two lab:two", "release a b lab:two lab:two"]
    assert "--acquire for lab:one failed with exit code 1: it burns" in capsys.readouterr().err
    assert len(list((folder / "out").glob("*.csv"))) == 1


def test_it_is_released_after_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert profiled("--device", "lab:broken", "--release", RELEASE) == 4
    assert calls() == ["release a b lab:broken lab:broken"]
    assert "the cable is cut" in capsys.readouterr().err


def test_a_failing_release_counts_if_all_else_was_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails = command("os.kill(os.getpid(), 9)")
    assert profiled("--device", "lab:one", "--release", fails) == 4
    assert "warning: --release for lab:one failed with signal 9\n" in capsys.readouterr().err
    assert len(list((folder / "out").glob("*.csv"))) == 1
    with pytest.raises(UsageError), Lending(release=shlex.split(fails)).borrowed("lab:one"):
        raise UsageError("of something else")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--acquire", "no-such-program {device}"), "--acquire: the program 'no-such-program' was not found"),
        (("--release", "'unclosed"), '--release "\'unclosed": No closing quotation'),
        (("--acquire", " "), "--acquire is empty"),
    ],
)
def test_a_command_that_cannot_run_is_refused_before_anything(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    assert profiled("--device", "lab:one", *words) == 2
    assert complaint in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_release_has_a_limit(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending_commands, "_RELEASE_LIMIT_S", 0.3)
    lending = Lending(release=shlex.split(command("time.sleep(60)")))
    with lending.borrowed("lab:one"):
        pass
    assert lending.exit_code(0) == 4
    assert lending.exit_code(3) == 3
    assert "--release for lab:one did not end within 0.3 s" in capsys.readouterr().err


def test_programs_that_it_leaves_behind_hold_nobody_up(folder: Path) -> None:
    leaves = command("import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])")
    began = time.monotonic()
    with Lending(acquire=shlex.split(leaves)).borrowed("lab:one"):
        assert time.monotonic() - began < 10


#: Borrows a device and waits, as a measurement does; WHERE it waits is given.
PROGRAM = """
import sys, time
from ofa_profiler.cli.lending import Lending
from ofa_profiler.cli.terminal import run_command
import shlex
lending = Lending(*(shlex.split(text) for text in sys.argv[1:]))
def measure():
    with lending.borrowed("lab:one"):
        open("measures", "w").close()
        time.sleep(60)
    return 0
sys.exit(run_command("ofa-profile", measure))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("where", ["measuring", "acquiring", "releasing"])
def test_it_is_released_after_an_interruption(folder: Path, where: str) -> None:
    slow = "open('waits', 'w').close(); time.sleep(60)"
    acquire = command(slow, "acquire") if where == "acquiring" else ACQUIRE
    release = command("open('releases', 'w').close(); time.sleep(0.3); open('released', 'w').close()", "release")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, acquire, release], start_new_session=True)
    for awaited in {"acquiring": ["waits"], "measuring": ["measures"], "releasing": ["measures", "releases"]}[where]:
        limit = time.monotonic() + 60
        while not Path(awaited).exists():
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    assert Path("released").exists()
    assert calls()[-1] == "release lab:one"
