"""Whole measurements on boards whose login shell is not POSIX and whose home folder has a name as nobody's should."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from support.kits import QUICK, conv_model
from support.sshd import Me, Sshd

from ofa_profiler.devices import open_device
from ofa_profiler.devices.remote.wheels import Wheels
from ofa_profiler.measuring.session import measure

HOME = "it's $(touch owned) `touch owned` !! ${HOME} \\ \\' \" ; touch owned #\n é 日本 😀 *?[a]{b,c}~ !\n"


@pytest.mark.parametrize("login_shell", ["dash", "tcsh", "fish"])
def test_nothing_in_the_name_of_a_home_reaches_a_shell(tmp_path, monkeypatch, login_shell):
    if shutil.which(login_shell) is None:
        pytest.skip(f"needs {login_shell}")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    wheel = tmp_path / "onnxruntime-1-py3-none-any.whl"  # this machine has a runtime: any file will do
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("here.py", "x = 1")
    monkeypatch.setattr(
        "ofa_profiler.devices.remote.provision.find_wheels", lambda *_, **__: Wheels("onnxruntime", (wheel,))
    )
    server = Sshd(tmp_path / "board", f'ForceCommand cd {tmp_path}; {login_shell} -c "$SSH_ORIGINAL_COMMAND"')
    strange = server.home / HOME
    strange.mkdir()
    program = server.folder / "bin" / "python3"
    program.unlink()
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"os.environ['HOME'] = {str(strange)!r}\n"
        f"open({str(tmp_path / 'paths')!r}, 'a').write(os.environ.get('PYTHONPATH', ''))\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o755)
    server.start()
    try:
        Me(tmp_path / "me", server)
        models = [conv_model(tmp_path, "op 1", 1)]
        with open_device(f"ssh:127.0.0.1:{server.port}") as device:
            assert measure(device, models, QUICK, journal=tmp_path / "j.jsonl")["op 1"].ok
            assert device.remove() == str(strange / ".ofa-profiler")
    finally:
        server.stop()
    assert str(strange / ".ofa-profiler" / "runtimes") in Path(tmp_path / "paths").read_text()
    assert list(strange.iterdir()) == []
    assert not list(tmp_path.glob("owned*"))
