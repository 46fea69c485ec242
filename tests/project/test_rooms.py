"""The rooms: which folder may import which, no circle of files or folders, no import inside a function to dodge one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support.paths import ROOT

#: From the top down: a room may import those of the floors below its own, and none beside it (docs/architecture.md).
PROFILER = [
    {"cli"},
    {"api"},
    {"verification"},
    {"measuring", "pages"},
    {"export", "models", "tables", "devices"},
    {"spaces", "protocol"},
    {"networks", "runtimes"},
    {"base"},
    {"errors"},
]
SEARCH = [
    {"train_cli", "prune_cli"},
    {"cli"},
    {"prune_api"},
    {"results", "training"},
    {"searching", "evaluation", "pruning"},
    {"predictor", "supernet"},
    {"artifacts", "data", "ladder"},
]
#: They take long to import, or are extras: whoever does not need them should not wait for them.
HEAVY = {
    "PIL",
    "adb_shell",
    "distributed",
    "importlib.metadata",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pandas",
    "paramiko",
    "plotly",
    "pyarrow",
    "rich",
    "safetensors",
    "torch",
    "urllib",
    "usb1",
    "yaml",
}
LONGEST_FILE = 340


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    inside_function: bool


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in ("ofa_profiler", "ofa_search") for path in (ROOT / package).rglob("*.py")}


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file; what is imported from a package is the module of that name, where there is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            joined = {f"{node.module}.{alias.name}" for alias in node.names}
            names = [*(joined & FILES.keys()), *({node.module} if joined - FILES.keys() else ())]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, id(node) in inside)


IMPORTS = {module: list(imports(path)) for module, path in FILES.items()}
ARROWS = {module: {i.target for i in found if i.target in FILES} - {module} for module, found in IMPORTS.items()}


def room_of(module: str) -> str:
    """`ofa_profiler.tables` for all of its files; `ofa_profiler` for the package's own front."""
    return ".".join(module.split(".")[:2])


def floors(package: str) -> dict[str, int]:
    listed = {"ofa_profiler": PROFILER, "ofa_search": SEARCH}[package]
    found = {f"{package}.{name}": -i for i, rooms in enumerate(listed) for name in rooms}
    return {**found, package: 1}  # the front of a package gives out what is in its rooms


FLOORS = floors("ofa_profiler") | floors("ofa_search")


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle, if there is one."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_the_check_sees_what_there_is() -> None:
    assert len(FILES) > 150
    assert "ofa_profiler.networks.op" in ARROWS["ofa_profiler.tables.row"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_every_file_is_in_a_room_that_has_a_floor() -> None:
    assert {room_of(module) for module in FILES} == set(FLOORS)


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_down(module: str) -> None:
    here = room_of(module)
    wrong = []
    for target in ARROWS[module]:
        there = room_of(target)
        same_package = there.split(".")[0] == here.split(".")[0]
        if same_package and there != here and FLOORS[there] >= FLOORS[here]:
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("module", [module for module in FILES if module.startswith("ofa_search.")])
def test_only_commands_of_the_search_use_commands_of_the_profiler(module: str) -> None:
    used = {room_of(target) for target in ARROWS[module]}
    assert room_of(module) == "ofa_search.cli" or not used & {"ofa_profiler.cli", "ofa_profiler.api"}


def test_no_circle_of_the_agent() -> None:
    folder = ROOT / "device_agents" / "ofa_agent"
    arrows: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                found = [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]
                arrows.setdefault(str(path), set()).update(str(target) for target in found if target.is_file())
    assert len(arrows) > 15
    assert circle(arrows) == []


def test_no_circle_of_files() -> None:
    assert circle(ARROWS) == []


def test_no_circle_of_folders() -> None:
    folders: dict[str, set[str]] = {}
    for module, targets in ARROWS.items():
        folder = FILES[module].parent
        others = {FILES[target].parent for target in targets} - {folder, *folder.parents}
        inner = {str(other) for other in others if not other.is_relative_to(folder)}
        folders.setdefault(str(folder), set()).update(inner)
    assert circle(folders) == []


def is_heavy(module: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether importing it imports one of the heavy libraries."""
    for found in IMPORTS[module]:
        if found.inside_function or found.target in seen:
            continue
        if found.target.split(".")[0] in HEAVY or found.target in HEAVY:
            return True
        if found.target in FILES and is_heavy(found.target, seen | {module, found.target}):
            return True
    return False


@pytest.mark.parametrize("module", FILES)
def test_functions_import_only_what_takes_long(module: str) -> None:
    """Commands may also wait with what only some of their options need: their start is what a user waits for."""
    if room_of(module).endswith(".cli") or module in ("ofa_profiler", "ofa_search"):
        return
    inside = [found.target for found in IMPORTS[module] if found.inside_function and found.target in FILES]
    assert [target for target in inside if not is_heavy(target)] == []


@pytest.mark.parametrize("module", FILES)
def test_files_are_short(module: str) -> None:
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("module", FILES)
def test_functions_are_short(module: str) -> None:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60] == []
