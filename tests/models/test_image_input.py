"""What a user's function says about its input."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler.errors import UsageError
from ofa_profiler.models.image_input import image_input, image_shape
from ofa_profiler.models.torch_export import load_network

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3x32x32", "not like 1x3x224x224"),
        ("1x3x32x32x", "not like"),
        ("1x3x-2x4", "not like"),
        ("8x3x32x32", "a batch of 1"),
        ("1x1x28x28", "3 channels"),
        ("1x3x32x64", "squares"),
        ("1x3x0x0", "above 0"),
    ],
)
def test_a_shape_that_is_no_image_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        image_shape(text)


def test_what_is_not_said_is_as_for_imagenet() -> None:
    found = image_input(None, 224, "nets:small")
    assert found.shape == image_shape("1x3x224x224")
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)
    assert found.preprocessing.channels == "RGB"


def test_the_usual_numbers_follow_range_and_order() -> None:
    found = image_input({"range": (-1, 1), "channels": "BGR"}, 32, "nets:small").preprocessing
    plain = image_input({}, 32, "nets:small").preprocessing
    pixels = np.array([[10.0, 100.0, 250.0]]) / 255
    ours = (2 * pixels[:, ::-1] - 1 - found.mean) / found.std
    np.testing.assert_allclose(ours[:, ::-1], (pixels - plain.mean) / plain.std)


def test_arrays_and_lists_are_numbers_too() -> None:
    said = {"mean": torch.tensor([0.5, 0.5, 0.5]), "std": np.array([1, 2, 3]), "resolution": [32, 32]}
    assert image_input(said, 32, "nets:small").preprocessing.std == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ([0.5], "returns list beside the module"),
        ({"size": 3}, "has 'size'; its fields are mean, std"),
        ({"mean": 0.5}, "mean in the preprocessing is 0.5, not 3 numbers"),
        ({"mean": [0.5, 0.5]}, "not 3 numbers"),
        ({"std": [1, 0, 1]}, "std in the preprocessing must be above 0"),
        ({"std": [1, float("nan"), 1]}, "not 3 numbers"),
        ({"range": [1, 0]}, "range 1 to 0"),
        ({"channels": "rgb"}, "channels in the preprocessing is 'rgb', not RGB or BGR"),
        ({"resolution": 64}, "has the resolution 64, but --input has 32"),
    ],
)
def test_what_is_wrong_is_named(said: object, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"nets:small.*{problem}"):
        image_input(said, 32, "nets:small")


def test_the_function_may_return_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import torch\ndef both():\n    return torch.nn.Linear(2, 2), {'mean': [0, 0, 0]}\n"
    (tmp_path / "nets_with_both.py").write_text(text + "def alone():\n    return both()[0]\n")
    monkeypatch.chdir(tmp_path)
    module, said = load_network("nets_with_both:both")
    assert isinstance(module, torch.nn.Linear)
    assert said == {"mean": [0, 0, 0]}
    again, nothing = load_network("nets_with_both:alone")
    assert nothing is None
    assert torch.equal(again.weight, module.weight)
    del sys.modules["nets_with_both"]


def test_what_is_wrapped_around_a_module_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has other names of weights, and cannot be exported."""
    text = "import torch\nnet = torch.nn.Linear(2, 2)\ndef spread():\n    return torch.nn.DataParallel(net)\n"
    text += "class Compiled(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    text += "        self._orig_mod = spread()\ndef compiled():\n    return Compiled()\n"  # like torch.compile(net)
    (tmp_path / "wrapped_nets.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("spread", "compiled"):
        assert list(load_network(f"wrapped_nets:{name}")[0].state_dict()) == ["weight", "bias"]
    del sys.modules["wrapped_nets"]
