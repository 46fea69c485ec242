"""Ctrl-C and SIGTERM at any time: an exit code, one line or none, and never a traceback."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ofa_profiler.cli.interruption import Interruption
from ofa_profiler.cli.terminal import run_command
from ofa_profiler.errors import DeviceError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

COMMANDS = (
    "ofa_profiler.cli.profile",
    "ofa_profiler.cli.verify",
    "ofa_search.cli.search",
    "ofa_search.cli.train",
    "ofa_search.train_cli",
)
NUMBERS = {signal.SIGINT: 130, signal.SIGTERM: 143}
RUNNING = {**NUMBERS, signal.SIGHUP: 129}
#: Sends itself a signal when the module WHEN is imported, which stands for a time during the imports.
PROGRAM = """
import os, runpy, signal, sys
module, when, number, *sys.argv[1:] = sys.argv[1:]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Finder())
if module.endswith("()"):
    name, function = module[:-2].rsplit(".", 1)
    sys.exit(getattr(__import__(name, fromlist=["x"]), function)())
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def ended(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("module", COMMANDS)
def test_during_the_imports_it_ends_quietly(module: str, number: int) -> None:
    for when in ("argparse", "ofa_profiler.errors"):
        assert ended(module, when, number, "--help") == (NUMBERS[number], "", ""), when


@pytest.mark.parametrize("number", NUMBERS)
def test_the_installed_commands_do_the_same(number: int) -> None:
    for function in ("ofa_profiler.cli.start.verify()", "ofa_search.cli.start.search()"):
        assert ended(function, "numpy", number, "--help") == (NUMBERS[number], "", "")
    code, out, err = ended("ofa_profiler.cli.start.profile()", "never", number, "--help")
    assert (code, err) == (0, "")
    assert "usage: ofa-profile" in out


@pytest.mark.parametrize("delay_s", [0.1, 0.2, 0.4])
def test_ctrl_c_soon_after_the_start(delay_s: float, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ofa_profiler.cli.profile",
        "--device",
        "local",
        "--no-calibration",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen([*command, "--resolution", "24"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while "multiarray" not in Path(f"/proc/{process.pid}/maps").read_text():  # our imports have begun
        assert time.monotonic() < deadline
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err == "" or err.startswith(("ofa-profile: interrupted", "note: "))
    assert "Traceback" not in err


def test_signals_are_ignored_under_nohup() -> None:
    code = (
        "import signal, os; from ofa_profiler.cli.start import end_quietly; end_quietly();"
        "os.kill(os.getpid(), signal.SIGINT); print('alive')"
    )
    program = f"import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n"


# --- in a running command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", RUNNING)
def test_the_command_is_unwound_and_says_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(n) for n in RUNNING]
    restored = []

    def command() -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # of an impatient parent: the clean-up goes on
            restored.append(True)
        return 0

    assert run_command("ofa-x", command, interrupted=lambda: "interrupted; all is kept") == RUNNING[number]
    assert capsys.readouterr().err == "ofa-x: interrupted; all is kept\n"
    assert restored == [True]
    assert [signal.getsignal(n) for n in RUNNING] == before


def test_a_closed_terminal_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    def command() -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(60)
        return 0

    monkeypatch.setattr(sys, "stderr", Closed())
    assert run_command("ofa-x", command) == 129


def test_an_interruption_that_becomes_another_error_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def command(error: Exception) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            raise error from None
        return 0

    assert run_command("ofa-x", lambda: command(SystemError("of a library"))) == 143
    assert capsys.readouterr().err == "ofa-x: interrupted\n"
    assert run_command("ofa-x", lambda: command(DeviceError("the link is lost"))) == 143
    assert capsys.readouterr().err == "ofa-x: the link is lost\nofa-x: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        run_command("ofa-x", lambda: 1 // 0)


def test_a_clean_up_that_hangs_can_be_ended() -> None:
    code = (
        "import os, signal, time, ofa_profiler.cli.interruption as i\n"
        "i._CLEAN_UP_S = 0.1\n"
        "with i.Interruption():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        time.sleep(0.3)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 130


def test_outside_the_main_thread_nothing_is_done() -> None:
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(Interruption().__enter__().number))
    thread.start()
    thread.join()
    assert found == [None]
