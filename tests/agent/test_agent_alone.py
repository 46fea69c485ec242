"""The agent is a folder that travels: it imports its own code from there, whatever lies around."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.kits import QUICK, bytes_model, make_kit, records, run_agent, stub_runtime, visits

from ofa_profiler.protocol.target import Target

WRONG = "raise SystemExit('a file that lies around was imported')\n"
NAMES = ("queue", "ofa_agent", "statistics", "zipfile", "argparse")


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return make_kit(tmp_path / "kit", [bytes_model(tmp_path, "a", b"run")])


def stray_files(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.py").write_text(WRONG)
    return folder


@pytest.mark.parametrize("how", [[], ["--no-fork"]], ids=["forked", "spawned"])
@pytest.mark.parametrize("safe", ["", "1"])
@pytest.mark.parametrize("where", ["cwd", "kit"])
def test_stray_files_are_not_imported(tmp_path, kit, where, safe, how):
    """Not from the working directory, which an empty part of PYTHONPATH names, nor from beside the agent."""
    cwd = stray_files(kit if where == "kit" else tmp_path / "somewhere")
    path = os.pathsep.join([stub_runtime(tmp_path / "stub")["PYTHONPATH"], ""])
    done = subprocess.run(
        [sys.executable, str(kit / "agent.py"), "--kit", str(kit), *how],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": safe},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert visits(done.stdout)["a"][0]["status"] == "ok"


def test_another_package_of_its_name_is_not_imported(tmp_path, kit):
    env = stub_runtime(tmp_path / "stub")
    stray = Path(env["PYTHONPATH"]) / "ofa_agent"
    stray.mkdir()
    (stray / "__init__.py").write_text(WRONG)
    done = run_agent(kit, env=env)
    assert done.returncode == 0, done.stderr


def test_no_bytecode_is_left_that_could_be_run_instead(tmp_path, kit):
    assert run_agent(kit, env=stub_runtime(tmp_path / "stub")).returncode == 0
    assert not list(kit.rglob("__pycache__"))


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15"])
def test_an_old_python_is_told(tmp_path, kit, version):
    python = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no Python {version} here")
    done = run_agent(kit, python=str(python))
    assert done.returncode == 1
    assert done.stderr == f"agent: Python 3.7 or newer is needed, this is {version[:3]}\n"


RUNTIME = '''
"""A runtime that is a file of somebody else."""


class Runtime:
    def __init__(self, settings, spare_core):
        self.info = {"name": "their-own", "version": "7", "provider": str(settings["threads"])}

    def load(self, model, inputs):
        if model != b"run":
            raise ValueError("not for me")
        return lambda: sum(range(100))
'''


@pytest.mark.parametrize("how", [[], ["--no-fork"]], ids=["forked", "spawned"])
def test_a_runtime_is_one_more_file(tmp_path, how):
    models = [bytes_model(tmp_path, "a", b"run"), bytes_model(tmp_path, "b", b"other")]
    kit = make_kit(tmp_path / "kit", models, replace(QUICK, target=Target("their-own")))
    (kit / "ofa_agent" / "runtimes" / "their-own.py").write_text(RUNTIME)
    done = run_agent(kit, *how)
    assert done.returncode == 0, done.stderr
    (device,) = (record for record in records(done.stdout) if record["type"] == "device")
    assert device["runtime"] == {"name": "their-own", "version": "7", "provider": "1"}
    found = visits(done.stdout)
    assert found["a"][-1]["status"] == "ok"
    assert found["b"][0]["error"] == "ValueError: not for me"


@pytest.mark.parametrize("name", ["nothing", "__init__", "../inputs", "os", "onnxruntime.x", ""])
def test_a_runtime_without_a_file_is_one_fatal_record(tmp_path, name):
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "a", b"run")], replace(QUICK, target=Target(name)))
    done = run_agent(kit)
    assert done.returncode == 1
    assert records(done.stdout)[-1] == {
        "type": "fatal",
        "error": f"this agent has no runtime {name!r}",
        "usage": True,
        "transient": False,
    }


def test_the_kit_has_all_of_the_agent(tmp_path, kit):
    """Moved elsewhere, it works alone."""
    shutil.move(kit, tmp_path / "board")
    done = subprocess.run(
        [sys.executable, "agent.py", "--kit", "."],
        cwd=tmp_path / "board",
        env={**os.environ, **stub_runtime(tmp_path / "stub")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
