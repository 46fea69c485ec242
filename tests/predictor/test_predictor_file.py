"""Our own files of accuracy predictors: what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from ofa_profiler import get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import space_names
from ofa_search import AccuracyPredictor
from ofa_search.predictor import Features, Metrics
from ofa_search.predictor.layers import Layer

CIFAR = get_space("cifar-mbv3")


def made_up(name: str = "cifar-mbv3", hidden: tuple[int, ...] = (12, 8), seed: int = 0) -> AccuracyPredictor:
    space = get_space(name)
    features, rng = Features.of(space), np.random.default_rng(seed)
    sizes = (features.count(space), *hidden, 1)
    layers = tuple(
        Layer(rng.normal(0, 0.1, (a, b)).astype(np.float32), rng.uniform(0.1, 0.5, b).astype(np.float32))
        for a, b in pairwise(sizes)
    )
    return AccuracyPredictor(
        "made-up",
        name,
        features,
        layers,
        space.n_classes,
        accuracy_of="5,000 images held out from the training images",
        metrics=Metrics(rmse=0.31, kendall_tau=0.87, spearman=0.97, samples=200),
        offset=-0.004,
    )


@pytest.mark.parametrize("name", space_names())
def test_what_is_saved_comes_back(tmp_path: Path, name: str) -> None:
    predictor, space = made_up(name), get_space(name)
    path = predictor.save(tmp_path / "deep" / f"{name}.safetensors")
    again = AccuracyPredictor.load(path)
    fields = ("space", "features", "n_classes", "accuracy_of", "metrics", "offset")
    assert [getattr(again, field) for field in fields] == [getattr(predictor, field) for field in fields]
    assert again.name == name
    genomes = space.sample_genomes(np.random.default_rng(0), 200)
    accuracies = predictor.predict_genomes(space, genomes)
    assert (again.predict_genomes(space, genomes) == accuracies).all()
    assert (AccuracyPredictor.load(path.with_suffix(".json")).predict(space.decode(genomes)) == accuracies).all()


def test_names_with_dots_stay_whole(tmp_path: Path) -> None:
    assert made_up().save(tmp_path / "ofa-mbv3-w1.2").name == "ofa-mbv3-w1.2.safetensors"
    assert AccuracyPredictor.load(tmp_path / "ofa-mbv3-w1.2.json").name == "ofa-mbv3-w1.2"


def test_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    bare = replace(made_up(), accuracy_of=None, metrics=None, offset=0.0)
    again = AccuracyPredictor.load(bare.save(tmp_path / "bare"))
    assert (again.accuracy_of, again.metrics, again.offset) == (None, None, 0.0)
    constant = replace(made_up(), metrics=Metrics(0.1, float("nan"), float("nan"), 5))
    found = AccuracyPredictor.load(constant.save(tmp_path / "constant")).metrics
    assert found is not None
    assert np.isnan([found.kendall_tau, found.spearman]).all()


def test_the_json_beside_it_says_the_same(tmp_path: Path) -> None:
    path = made_up().save(tmp_path / "p", metadata={"log": "p.csv"})
    text = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["accuracy_predictor"]) == text
    assert text["features"] == {"kinds": ["kernel_size", "expand_ratio"], "resolutions": [24, 28, 32]}
    assert (text["format"], text["hidden"], text["log"]) == (1, [12, 8], "p.csv")
    assert text["metrics"] == {"rmse": 0.31, "kendall_tau": 0.87, "spearman": 0.97, "samples": 200}
    assert {"space", "n_classes", "accuracy_of", "offset", "tool_version"} <= text.keys()
    path.with_suffix(".json").unlink()  # a copy for people; nothing needs it
    assert AccuracyPredictor.load(path).space == "cifar-mbv3"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = made_up().save(tmp_path / "p")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        made_up(seed=1).save(path, metadata={"loss": float("nan")})
    assert path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        made_up().save(tmp_path / "file" / "p")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "p.json", "p.safetensors"]


def test_loading_and_predicting_need_numpy_only(tmp_path: Path) -> None:
    path = made_up().save(tmp_path / "p")
    code = """
import sys, numpy
from ofa_profiler import get_space
from ofa_search import AccuracyPredictor
space = get_space("cifar-mbv3")
print(AccuracyPredictor.load(sys.argv[1]).predict([space.sample(numpy.random.default_rng(0))])[0])
heavy = {"torch", "tensorflow", "scipy", "pandas", "onnx", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1


# --- files that are not what they should be ----------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A file of ours with its description and arrays changed."""
    source = made_up().save(path)
    with safe_open(source, framework="np") as file:
        description = json.loads(file.metadata()["accuracy_predictor"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(description, arrays)
    save_file(arrays, source, metadata={"accuracy_predictor": json.dumps(description)})
    return source


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", 2, "format 2, this version reads 1"),
        ("format", None, "format None"),
        ("space", "mbv9", "unknown search space 'mbv9'"),
        ("space", 3, "'space' is 3, not a text"),
        ("space", "ofa-resnet50", "kinds"),
        ("space", "ofa-mbv3-w1.2", "resolutions"),
        ("n_classes", 0, "not a positive number"),
        ("n_classes", True, "'n_classes' is True"),
        ("n_classes", "10", "'n_classes' is '10', not a whole number"),
        ("features", [], "'features'"),
        ("features", {"kinds": ["kernel_size"], "resolutions": [24, 28, 32]}, "takes 123 features"),
        ("features", {"kinds": ["width"], "resolutions": [24]}, "kinds"),
        ("features", {"kinds": [["kernel_size"]], "resolutions": [24]}, "kinds"),
        ("features", {"kinds": ["depth", "depth"], "resolutions": [24]}, "kinds"),
        ("features", {"kinds": ["kernel_size", "expand_ratio"], "resolutions": [24, 28, 30]}, "resolutions"),
        ("features", {"kinds": ["kernel_size", "expand_ratio"], "resolutions": [32, 28, 24]}, "ascending"),
        ("features", {"kinds": ["kernel_size", "expand_ratio"], "resolutions": []}, "resolutions"),
        ("hidden", [12, 9], "hidden layers are [12, 8], not [12, 9]"),
        ("accuracy_of", 5, "'accuracy_of' is 5"),
        ("offset", "none", "'offset' is 'none', not a finite number"),
        ("offset", float("nan"), "'offset' is nan"),
        ("offset", float("inf"), "'offset' is inf"),
        ("offset", 10**400, "'offset'"),
        ("metrics", [0.1], "'metrics' is [0.1], not an object"),
        ("metrics", {"rmse": None, "samples": 3}, "'rmse' is None"),
        ("metrics", {"rmse": 0.3, "samples": 0.5}, "'samples' is 0.5"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, field: str, value: object, words: str) -> None:
    path = rewritten(tmp_path / "p", lambda description, _: description.update({field: value}))
    with pytest.raises(InputFileError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}") as refused:
        AccuracyPredictor.load(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("0.weight", np.zeros((12, 100), np.float32), "takes 100 features"),
        ("2.weight", np.zeros((8, 11), np.float32), "do not fit"),
        ("2.bias", np.full(8, np.nan, np.float32), "not finite"),
        ("2.bias", np.full(8, 1e300), "not finite"),
        ("6.weight", np.zeros((1, 1), np.float32), "not an accuracy predictor"),
        ("0.weight", np.array(["x"]).view(np.uint8), "do not fit"),
    ],
)
def test_layers_that_do_not_fit_are_refused(tmp_path: Path, name: str, value: Any, words: str) -> None:
    path = rewritten(tmp_path / "p", lambda _, arrays: arrays.update({name: value}))
    with pytest.raises(InputFileError, match=words):
        AccuracyPredictor.load(path)


@pytest.mark.parametrize("metadata", [None, {"supernet": "{}"}, {"accuracy_predictor": "["}])
def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(InputFileError, match=r"safetensors file, but not|not a JSON object"):
        AccuracyPredictor.load(tmp_path / "x.safetensors")


def test_a_deep_description_is_refused(tmp_path: Path) -> None:
    metadata = {"accuracy_predictor": "[" * 100_000}
    save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(InputFileError, match="not a JSON object"):
        AccuracyPredictor.load(tmp_path / "x.safetensors")


def test_missing_huge_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        AccuracyPredictor.load(tmp_path / "none.safetensors")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(InputFileError):
        AccuracyPredictor.load(folder)
    huge = tmp_path / "huge.safetensors"
    huge.touch()
    os.truncate(huge, 10 << 30)
    with pytest.raises(InputFileError, match="larger than"):
        AccuracyPredictor.load(huge)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 10_000), at=st.integers(0, 1200), byte=st.integers(0, 255))
def test_damage_gives_a_predictor_or_one_clear_line(tmp_path: Path, cut: int, at: int, byte: int) -> None:
    """Whatever byte of the header is changed, and wherever the file is cut."""
    path = tmp_path / "p.safetensors"
    if not (tmp_path / "whole.safetensors").exists():
        made_up().save(tmp_path / "whole")
    data = bytearray((tmp_path / "whole.safetensors").read_bytes())
    data[at] = byte
    path.write_bytes(data[: len(data) - cut] if cut % 3 == 0 else data)
    refused, predictor = "", None
    try:
        predictor = AccuracyPredictor.load(path)
    except InputFileError as error:
        refused = str(error)
    if predictor is None:
        assert len(refused.encode().splitlines()) == 1
    else:
        space = get_space(predictor.space).with_resolutions(predictor.resolutions)
        assert np.isfinite(predictor.predict([space.largest])).all()
