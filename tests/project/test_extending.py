"""docs/extending.md, run: its blocks become a package with a plugin, which the commands load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

PAGE = ROOT / "docs" / "extending.md"
SHIPPED = ROOT / "latency_tables" / "epyc-cifar-mbv3.csv"
PROFILE, SEARCH = "ofa_profiler.cli.profile", "ofa_search.cli.search"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the package of the page."""
    site = tmp_path_factory.mktemp("site")
    blocks = re.findall(r"```python\n# ([\w/]+\.py)[^\n]*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 13
    (site / "mine").mkdir()
    (site / "mine" / "__init__.py").touch()
    for name, code in blocks:
        with (site / name).open("a") as file:
            file.write(code)
    install(site, "mine", "mine.plugin:register")
    return site


def install(site: Path, name: str, function: str) -> None:
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[ofa_profiler.plugins]\n{name} = {function}\n")


def run(site: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=cwd,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_the_declaration_is_a_declaration():
    text = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    assert '[project.entry-points."ofa_profiler.plugins"]\nmine = "mine.plugin:register"' in text[1]


def test_every_example_is_short():
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        lines = [line for line in block.splitlines() if line and not line.startswith(("#", "import", "from"))]
        assert len(lines) <= 20, block


def test_an_engine_searches(site):
    words = ["--lut", str(SHIPPED), "--budget", "1ms", "--predictor", "macs", "--no-export", "--json"]
    done = run(site, "-m", SEARCH, *words, "--engine", "hill-climbing")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] == "hill-climbing"
    assert found["results"][0]["latency_ms"]["epyc-cifar-mbv3"] <= 1.0
    assert "hill-climbing" in "".join(run(site, "-m", SEARCH, "--help").stdout.split())  # in lines of any width
    shown = run(site, "-m", PROFILE, "--help").stdout
    assert "onnx-reference" in shown
    assert "core:N" in shown


@pytest.mark.slow
def test_a_space_and_a_kind_of_device(site, tmp_path):
    where = ["--device", "core:0", "--space", "cifar-mbv3-shallow", "--resolution", "24"]
    done = run(
        site,
        "-m",
        PROFILE,
        *where,
        "--out",
        str(tmp_path),
        "--name",
        "t",
        "--time-limit",
        "1ms",
        "--no-calibration",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "t.json").read_text())
    assert (table["spaces"], table["device"]["cores_used"]) == (["cifar-mbv3-shallow"], [0])
    wrong = run(site, "-m", PROFILE, "--device", "core:x", "--out", str(tmp_path))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "expected core:N, like core:1" in wrong.stderr


def test_a_runtime_measures_here_and_in_a_kit(site, tmp_path):
    code = f"""
import json
from pathlib import Path
from ofa_profiler.base.plugins import load_plugins
load_plugins()
from dataclasses import replace
from ofa_profiler import get_space
from ofa_profiler.devices import LocalDevice
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
target = Target("onnx-reference")
models = export_ops(get_space("cifar-mbv3").with_resolutions([24]).unique_ops()[-2:], target)
settings = Settings(target, min_rounds=2, max_rounds=2, visit_s=0.01, reference_every_s=None)
found = measure(LocalDevice(), models, settings, journal=Path({str(tmp_path / "j.jsonl")!r}))
print(json.dumps([measured.median_ms for measured in found.values()]))
"""
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert all(ms > 0 for ms in json.loads(done.stdout))
    devices = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert next(r for r in devices if r["type"] == "device")["runtime"]["name"] == "onnx-reference"
    words = ["--kit", str(tmp_path / "kit"), "--no-calibration", "--resolution", "24", "--runtime", "onnx-reference"]
    assert run(site, "-m", PROFILE, *words).returncode == 0
    carried = tmp_path / "kit" / "ofa_agent" / "runtimes" / "onnx-reference.py"
    assert carried.read_text() == (site / "mine" / "worker.py").read_text()


def test_a_correction_is_read_from_the_json_of_a_table(site, tmp_path):
    metadata = json.loads(SHIPPED.with_suffix(".json").read_text())
    (tmp_path / "t.csv").write_bytes(SHIPPED.read_bytes())
    (tmp_path / "t.json").write_text(json.dumps({**metadata, "correction": {"method": "scaled", "scale": 2.0}}))
    (tmp_path / "plain.csv").write_bytes(SHIPPED.read_bytes())
    (tmp_path / "plain.json").write_text(json.dumps({**metadata, "correction": {"method": "sum"}}))
    code = f"""
from ofa_profiler.base.plugins import load_plugins
load_plugins()
import numpy
from ofa_profiler import LatencyTable, get_space
plain, scaled = LatencyTable.load({str(tmp_path / "plain.csv")!r}), LatencyTable.load({str(tmp_path / "t.csv")!r})
one = [get_space("cifar-mbv3").sample(numpy.random.default_rng(0))]
print(scaled.predict_ms(one)[0] / plain.predict_ms(one)[0], scaled.cost(get_space("cifar-mbv3")).minimum()[0])
"""
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) == pytest.approx(2.0)


def test_a_layer_computes_the_same_in_all_backends(site):
    code = """
from ofa_profiler.base.plugins import load_plugins
load_plugins()
import numpy as np, onnxruntime, torch
from ai_edge_litert.interpreter import Interpreter
from mine.layer import Scale
from ofa_profiler.export import get_exporter
from ofa_profiler.export.forms.base import combinations
from ofa_profiler.networks.graph import Graph
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.networks.torch_modules import GraphModule, load_weights
from ofa_profiler.protocol.target import Target
from ofa_search.supernet.elastic import ELASTIC_LAYERS
graph = Graph.chain((Scale("scale", 5),), (4, 3, 5))
weights = {"scale.weight": np.arange(1, 6, dtype=np.float32)}
module = GraphModule(graph)
load_weights(module, weights)
x = np.random.default_rng(0).normal(size=(1, 5, 4, 3)).astype(np.float32)
expected = module(torch.from_numpy(x)).detach().numpy()
models = {name: get_exporter(Target(name)).build(graph, weights, Target(name), outputs=["y"], metadata={})
          for name in ("onnxruntime", "litert")}
(got,) = onnxruntime.InferenceSession(models["onnxruntime"]).run(None, {"input": x})
np.testing.assert_allclose(got, expected, rtol=1e-6)
lite = Interpreter(model_content=models["litert"])
lite.allocate_tensors()
lite.set_tensor(lite.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
lite.invoke()
got = lite.get_tensor(lite.get_output_details()[0]["index"]).transpose(0, 3, 1, 2)
np.testing.assert_allclose(got, expected, rtol=1e-6)
target = Target("onnxruntime")
forms = combinations(target, graph)
assert forms == [Forms({"scale": "depthwise"})]
other = get_exporter(target).build(graph, weights, target, outputs=["y"], metadata={}, forms=forms[0])
(got,) = onnxruntime.InferenceSession(other).run(None, {"input": x})
assert other != models["onnxruntime"]
np.testing.assert_allclose(got, expected, rtol=1e-6)
for target in (Target("onnxruntime", "int8"), Target("litert", "int8")):
    get_exporter(target).build(graph, weights, target, outputs=["y"], metadata={})
elastic = ELASTIC_LAYERS[Scale]([Scale("scale", 5)])
assert elastic.state_dict()["weight"].shape == (5,)
assert graph.params == 5
"""
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr


def test_an_op_of_a_new_kind_becomes_a_row(site, tmp_path):
    done = run(site, str(site / "measure.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    rows = (tmp_path / "scales.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["scale-32x32x64", "scale"], ["scale-16x16x128", "scale"]]


def test_the_plugin_keeps_a_search_light(site):
    code = """
from ofa_profiler.base.plugins import load_plugins
load_plugins()
import sys
print([name for name in ("onnx", "torch", "onnxruntime") if name in sys.modules])
from ofa_profiler import get_space
"""
    assert run(site, "-c", code).stdout == "[]\n"


def test_a_library_finds_what_plugins_bring(site):
    code = "from ofa_profiler import get_space; print(get_space('cifar-mbv3-shallow').stage_depths)"
    assert "(2,)" in run(site, "-c", code).stdout


def test_a_plugin_that_failed_fails_again(tmp_path):
    install(tmp_path, "broken", "nowhere.at_all:register")
    code = """
from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.errors import UsageError
for _ in range(2):
    try:
        load_plugins()
    except UsageError as error:
        print(error)
"""
    first, second = run(tmp_path, "-c", code).stdout.splitlines()
    assert first == second
    assert "plugin broken" in first


@pytest.mark.parametrize(
    ("function", "words"), [("nowhere.at_all:register", "No module named 'nowhere'"), ("math:factorial", "argument")]
)
def test_a_plugin_that_cannot_be_loaded_is_named_in_one_line(tmp_path, function, words):
    install(tmp_path, "broken", function)
    done = run(tmp_path, "-m", SEARCH, "--lut", str(SHIPPED), "--budget", "1ms")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ofa-search: plugin broken of the package broken cannot be loaded: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
