"""The arrows of the design: who may import whom, what may not be imported early, who may print and exit."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.tables.table import Row

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("device_agents", "ofa_profiler", "ofa_search")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
AGENTS = [path for path in SOURCES if path.is_relative_to(ROOT / "device_agents")]
#: What runs a model on a board, and the arrays that it takes and gives.
RUNTIMES = {"ai_edge_litert", "numpy", "onnxruntime", "tflite_runtime"}
#: Import time that nobody should pay who only reads a table or searches one.
HEAVY = ("matplotlib", "onnx", "onnxruntime", "pandas", "scipy", "tensorflow", "torch")
#: What a search without export does without, beside these: together they cost more than half of its start.
SLOW = (*HEAVY, "PIL", "asyncio", "concurrent.futures", "email", "http.client", "importlib.metadata", "multiprocessing",
        "ofa_search.artifacts.ofa_files", "ofa_search.cli.fleet", "plotly", "pyarrow", "rich", "safetensors", "sklearn",
        "ssl", "unittest", "urllib.request", "yaml")  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, with its package's dots resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield ".".join(filter(None, (base, node.module)))


def test_the_check_itself_sees_sources() -> None:
    assert {"agent.py", "terminal.py"} <= {path.name for path in SOURCES}
    assert "ofa_profiler.errors" in set(imports(ROOT / "ofa_profiler" / "base" / "files.py"))


@pytest.mark.parametrize("path", AGENTS, ids=name_of)
def test_agents_import_only_the_standard_library_and_runtimes(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | (RUNTIMES if path.parent.name == "runtimes" else set())
    own = ROOT / "device_agents" / "ofa_agent"
    others = [module for module in imports(path) if not (path.is_relative_to(own) and is_inside(module, own))]
    assert [module for module in others if module.split(".")[0] not in allowed] == []


def is_inside(module: str, folder: Path) -> bool:
    """Whether a module is one of a folder, which travels as a whole; only relative imports find it there."""
    name = ".".join(folder.relative_to(ROOT).parts)
    return module == name or module.startswith(name + ".")


@pytest.mark.parametrize("path", AGENTS, ids=name_of)
def test_agents_are_read_in_one_sitting(path: Path) -> None:
    """`store.py` is sent as one text."""
    assert path.name == "store.py" or len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", AGENTS, ids=name_of)
def test_agents_are_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "ofa_profiler")], ids=name_of)
def test_the_profiler_does_not_know_the_search(path: Path) -> None:
    assert [module for module in imports(path) if module.split(".")[0] == "ofa_search"] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_code_of_ours_imports_an_agent(path: Path) -> None:
    """An agent runs as a process of its own, here as on a board."""
    if path not in AGENTS:
        assert [module for module in imports(path) if module.startswith("device_agents.")] == []


def is_cli(path: Path) -> bool:
    return path.parent.name == "cli" or path.name in ("train_cli.py", "prune_cli.py")


@pytest.mark.parametrize("path", [p for p in SOURCES if p not in AGENTS and not is_cli(p)], ids=name_of)
def test_only_cli_files_parse_arguments_print_and_exit(path: Path) -> None:
    assert "argparse" not in set(imports(path))
    offences = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in {"print", "input", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"}:
            offences.append(f"line {node.lineno}: {called}")
        elif isinstance(node, ast.Name) and node.id == "SystemExit":
            offences.append(f"line {node.lineno}: SystemExit")
    assert offences == []


# --- what a fresh process has imported --------------------------------------------------------------------


def heavy_imports_of(code: str, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """The heavy modules that a new Python has imported after running `code`."""
    report = f"\nimport sys, json\nprint(json.dumps([m for m in {heavy!r} if m in sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    return loaded


@pytest.fixture(scope="module")
def made_up_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of `cifar-mbv3` whose times are the ops' MACs: there is nothing to measure in this file."""
    space = get_space("cifar-mbv3")
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.01] * 3) for op in space.unique_ops()
    )
    path = tmp_path_factory.mktemp("tables") / "made-up.csv"
    LatencyTable(name="made-up", rows=rows, metadata={"spaces": ["cifar-mbv3"]}, path=path).save(path)
    return path


def test_the_made_up_table_predicts(made_up_table: Path) -> None:
    space = get_space("cifar-mbv3")
    architecture = space.sample(np.random.default_rng(0))
    ops = space.ops(architecture)
    expected = sum(op.macs / 1e6 + 0.01 for op in ops)
    assert LatencyTable.load(made_up_table).predict_ms([architecture]) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("package", ["ofa_profiler", "ofa_search", "ofa_profiler.cli.profile", "ofa_search.cli.search"])
def test_importing_is_light(package: str) -> None:
    assert heavy_imports_of(f"import {package}") == []


def test_reading_a_table_is_light(made_up_table: Path) -> None:
    code = f"""
import numpy
from ofa_profiler import LatencyTable, get_space
table = LatencyTable.load({str(made_up_table)!r})
space = get_space("cifar-mbv3")
assert table.predict_ms([space.sample(numpy.random.default_rng(0))])[0] > 0
assert table.cost(space).minimum()[0] > 0
"""
    assert heavy_imports_of(code) == []


def heavy_imports_of_search(*arguments: str) -> list[str]:
    code = f"""
from ofa_search.cli.search import main
try:
    code = main({list(arguments)!r})
except SystemExit as done:
    code = done.code
assert not code, code
"""
    return heavy_imports_of(code)


def test_searching_without_export_is_light(made_up_table: Path) -> None:
    macs = ("--predictor", "macs")
    assert (
        heavy_imports_of_search("--lut", str(made_up_table), "--budget", "20ms", *macs, "--no-export", "--json") == []
    )


def test_a_search_loads_nothing_that_it_does_not_need(made_up_table: Path, tmp_path: Path) -> None:
    """By file names, with a predictor, and with tables of the OFA authors: see `benchmarks/cold_start.py`."""
    code = f"""
import sys
from ofa_profiler import LatencyTable
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.cli.search import main
LatencyTable.load({str(made_up_table)!r}).save_published({str(tmp_path / "published")!r})
for name in {SLOW!r}:
    sys.modules.pop(name, None)
for table in ({str(made_up_table)!r}, {str(tmp_path / "published")!r}):
    limits = ["--lut", table, "--budget", "20ms", "--space", "cifar-mbv3", "--engine", "random", "--evaluations", "50"]
    assert main([*limits, "--predictor", str(shipped_predictor("cifar-mbv3")), "--no-export", "--json"]) == 0
"""
    assert heavy_imports_of(code, SLOW) == []


@pytest.mark.slow
def test_exporting_trained_weights_imports_no_torch(made_up_table: Path, tmp_path: Path) -> None:
    """The supernet that ships has a table of BatchNorm statistics; onnx writes the model."""
    loaded = heavy_imports_of_search("--lut", str(made_up_table), "--budget", "20ms", "--out", str(tmp_path))
    assert loaded == ["onnx"]
    assert json.loads((tmp_path / "search.json").read_text())["results"][0]["weights"] == "trained"
