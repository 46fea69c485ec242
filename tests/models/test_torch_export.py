"""Torch modules of users as ONNX files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler.errors import UsageError
from ofa_profiler.models.sources import open_source
from ofa_profiler.models.torch_export import load_module

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_made_up_floats_have_the_type_of_the_weights(dtype: str, tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 3).to(getattr(torch, dtype))
    model, feeds = open_source(module, tmp_path, ["1x4"])
    assert [(each.dtype, each.shape) for each in model.inputs] == [(dtype, (1, 4))]
    (output,) = model.run(feeds).values()
    assert output.dtype == dtype


def test_weights_in_bfloat16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights of bfloat16.*module\.float\(\)"):
        open_source(torch.nn.Linear(4, 3).bfloat16(), tmp_path, ["1x4"])
    assert not list(tmp_path.iterdir())


def test_a_module_keeps_its_mode(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    module[1].eval()
    open_source(module, tmp_path, ["1x4"])
    assert [each.training for each in module.modules()] == [True, True, False]


def test_integers_are_asked_for_without_the_words_of_the_exporter(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = torch.nn.Embedding(9, 4)
    with pytest.raises(UsageError, match=r"'input' got made-up floats: give integers by --inputs") as error:
        open_source(module, tmp_path, ["1x5"])
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    model, feeds = open_source(module, tmp_path, [], {"input": np.array([[1, 8]])})
    assert [output.shape for output in model.run(feeds).values()] == [(1, 2, 4)]


USER = """
import sys, torch
print("loaded")

def says():
    print("made")
    return torch.nn.Linear(2, 2)

def leaves():
    sys.exit(7)
"""


def test_code_of_users_neither_prints_to_stdout_nor_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talking_nets.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_module("talking_nets:says"), torch.nn.Linear)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loaded\nmade\n")
    with pytest.raises(UsageError, match="talking_nets:leaves: SystemExit: 7"):
        load_module("talking_nets:leaves")
    del sys.modules["talking_nets"]


def test_a_class_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model is of the type Flatten: .*not its class"):
        open_source(torch.nn.Flatten, tmp_path, ["1x4"])  # type: ignore[arg-type]
