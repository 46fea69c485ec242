"""What a user installs: commands that start, versions that agree, a wheel that is whole, docs that are true."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ofa_profiler
from ofa_profiler import LatencyTable, get_space
from ofa_profiler.tables.table import Row

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("device_agents", "ofa_profiler", "ofa_search")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = sorted(PROJECT["scripts"])
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")] if path.parts[-2] != ".venv")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=cwd)


def script(name: str) -> Path:
    """The command as pip installed it, beside the running interpreter."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not installed beside {sys.executable}: run `make install`"
    return Path(found)


@cache
def help_of(command: str, *subcommand: str) -> str:
    done = run(script(command), *subcommand, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- commands ---------------------------------------------------------------------------------------------


def test_the_commands_of_the_design_are_installed() -> None:
    assert {"ofa-compare", "ofa-profile", "ofa-prune", "ofa-search", "ofa-train", "ofa-verify"} == set(COMMANDS)


@pytest.mark.parametrize("what", [(), ("weights",), ("supernet", "--epochs", "0"), ("subnet",)])
def test_training_refuses_bad_usage_in_one_line(what: tuple[str, ...]) -> None:
    done = run(script("ofa-train"), *what)
    assert done.returncode == 2
    assert re.fullmatch(r"ofa-train: .* \(ofa-train( supernet| subnet)? --help lists the options\)\n", done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_starts(command: str) -> None:
    assert f"usage: {command}" in help_of(command)
    done = run(script(command), "--version")
    assert (done.returncode, done.stdout) == (0, f"{command} {ofa_profiler.__version__}\n")


def test_versions_agree() -> None:
    assert version("ofa-profiler") == ofa_profiler.__version__
    releases = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert not releases or releases[0] == ofa_profiler.__version__


# --- dependencies -----------------------------------------------------------------------------------------


REQUIREMENTS = [
    Requirement(line)
    for lines in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in lines
]


def test_whatever_is_imported_is_declared() -> None:
    """Third-party imports of the packages, wherever in a file, against all dependencies and extras."""
    distribution = {"yaml": "pyyaml", "ai_edge_litert": "ai-edge-litert", "google": "protobuf"}
    distribution |= {"adb_shell": "adb-shell", "PIL": "pillow"}
    used_where_installed = {"pillow_heif", "tflite_runtime"}
    declared = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    known = set(sys.stdlib_module_names) | set(PACKAGES) | used_where_installed
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in {name.split(".")[0] for name in names} - known:
                assert distribution.get(name, name) in declared, f"{path.name}, line {node.lineno}: {name}"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_once_for_each_python_and_within_its_range(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    environment |= {"platform_machine": "x86_64", "platform_python_implementation": "CPython"}
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(environment):
            assert canonicalize_name(pin.name) not in pins, f"{pin.name} is pinned twice"
            (exact,) = pin.specifier
            assert exact.operator == "=="
            pins[canonicalize_name(pin.name)] = exact.version
    for requirement in REQUIREMENTS:
        if requirement.name != "ofa-profiler" and (not requirement.marker or requirement.marker.evaluate(environment)):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


# --- the wheel --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: building in place would leave files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = run(sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "-w", target)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert "device_agents/agent.py" in ours
    assert ours - names == set(), "files that a user would miss"
    assert {name for name in names - ours if ".dist-info/" not in name} == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_checkout(wheel: Path, tmp_path: Path) -> None:
    """Installed for real, it finds its agent: an agent named in the packages must travel with them."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
import ofa_profiler
assert ofa_profiler.__file__.startswith({str(site)!r}), ofa_profiler.__file__
from ofa_profiler.cli.profile import main
where = ["--device", "local", "--space", "cifar-mbv3", "--resolution", "24", "--out", "tables"]
main([*where, "--time-limit", "5s", "--no-calibration"])
"""
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "tables").glob("*.csv"))) == 1


# --- documents --------------------------------------------------------------------------------------------


def shell_lines(path: Path) -> list[str]:
    """The commands in a document's ```sh blocks and in its indented ones; continued lines joined, comments dropped."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).splitlines() + re.findall(r"^ {4,}((?:ofa-[a-z]+|make) .*)$", text, re.MULTILINE)
    return [line.strip().removeprefix("$ ") for line in lines if line.strip() and not line.lstrip().startswith("#")]


DOCUMENTED = [
    pytest.param(path, line, id=f"{path.relative_to(ROOT)}: {line[:60]}")
    for path in DOCUMENTS
    for line in shell_lines(path)
]


def test_the_readme_shows_the_commands() -> None:
    lines = shell_lines(ROOT / "README.md")
    assert {"make quickstart", "make test"} <= set(lines)
    for command in set(COMMANDS) - {"ofa-train"}:  # nothing to show yet
        assert any(line.startswith(command) for line in lines), f"the README does not show {command}"


@pytest.mark.parametrize(("path", "line"), DOCUMENTED)
def test_documented_commands_exist(path: Path, line: str) -> None:
    """Options are those of the command's help, make targets those of the Makefile, programs are there."""
    program, *arguments = shlex.split(line, comments=True)
    program = program.removeprefix(".venv/bin/")
    options = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    if program.startswith("ofa-"):
        assert program in COMMANDS
        subcommand = arguments[:1] if program == "ofa-train" else []
        assert options <= set(re.findall(r"--[a-z][a-z0-9-]*", help_of(program, *subcommand)))
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {argument for argument in arguments if "=" not in argument} <= set(targets)
    elif program.startswith("python") and arguments and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """In a folder as `make quickstart` leaves it, but for the times, which are made up."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    ops = get_space("cifar-mbv3").unique_ops()
    rows = tuple(Row.from_op(op, batch=1, precision="fp32", samples_ms=[0.01 + op.macs / 1e8] * 3) for op in ops)
    LatencyTable("this-machine", rows, {"spaces": ["cifar-mbv3"]}).save(tmp_path / "out/quickstart/this-machine.csv")
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Architecture(space='cifar-mbv3'" in done.stdout
