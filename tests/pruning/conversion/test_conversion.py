"""Torch modules as graphs of layers: the outputs of torch in both runtimes, or one line that says why not."""

from __future__ import annotations

import os
import re

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.both_formats import RUNTIMES, assert_close, run_graph_file, torch_output
from support.timm_nets import with_statistics
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.parameters import check_weights
from ofa_search.pruning.conversion import to_graph

torch.set_num_threads(1)


class Called(nn.Module):
    """A function as a module, with one convolution that it may call."""

    def __init__(self, function, **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Tensor):
        return self.function(self, *inputs)


def convert(module: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    """The graph of a module, after a comparison of its outputs."""
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    graph, weights = to_graph(module, tuple(torch.from_numpy(x) for x in arrays))
    check_weights(graph.parameter_shapes, weights)
    expected = torch_output(module, *arrays)
    for runtime in RUNTIMES:
        assert_close(run_graph_file(runtime, graph, weights, *arrays), expected)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [type(node.layer).__name__ for node in graph.nodes]


# --- functions of torch ------------------------------------------------------------------------------------


def squeeze_excite(net, x):
    gate = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    gate = torch.sigmoid(net.fc(gate)).view(x.shape[0], -1, 1, 1)
    return x * gate


def shuffle(net, x):
    batch, channels, height, width = x.shape
    return (
        x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(batch, channels, height, width)
    )


def halves(net, x):
    first, second = x.chunk(2, dim=1)
    return torch.cat([second, net.conv(first)], dim=1)


FUNCTIONS = {
    "hard-swish by hand": lambda net, x: x * functional.relu6(x + 3) / 6,
    "normalised images": lambda net, x: net.conv((x - torch.tensor([0.1] * 4).view(4, 1, 1)) / 0.5),
    "one minus": lambda net, x: 1 - net.conv(x),
    "difference": lambda net, x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x,
    "squeeze and excite": squeeze_excite,
    "two unsqueezes": lambda net, x: x * net.fc(x.mean((2, 3)))[:, :, None, None],
    "two squeezes": lambda net, x: functional.adaptive_avg_pool2d(net.conv(x), 1).squeeze(-1).squeeze(-1),
    "flat pixels": lambda net, x: x.view(x.shape[0], x.shape[1], -1).mean(2),
    "sums": lambda net, x: (x.sum(3, keepdim=True) / 8).sum(2, keepdim=True) / 9,
    "mean of rows": lambda net, x: x * x.mean(3, keepdim=True),
    "sum of pixels": lambda net, x: x.sum((2, 3)),
    "shuffle": shuffle,
    "halves": halves,
    "slices": lambda net, x: torch.cat([x[:, 1:], net.conv(x)[:, :-1]], 1),
    "asymmetric margins": lambda net, x: net.conv(functional.pad(x, (0, 1, 2, 3))),
    "margins alone": lambda net, x: torch.relu(functional.pad(x, (0, 1, 2, 3))),
    "maximum with margins": lambda net, x: functional.max_pool2d(
        functional.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2
    ),
    "windows that end outside": lambda net, x: functional.max_pool2d(x, 3, 2, ceil_mode=True),
    "adaptive windows": lambda net, x: functional.adaptive_avg_pool2d(x, (3, 2)),
    "clamp": lambda net, x: net.conv(x).clamp(0, 6) + x.clamp(min=0),
    "gelu": lambda net, x: functional.gelu(net.conv(x)),
    "softmax": lambda net, x: net.fc(x.mean([2, 3])).softmax(-1),
    "dropout": lambda net, x: functional.dropout(net.conv(x), 0.5, net.training),
    "in place": lambda net, x: functional.relu(net.conv(x), inplace=True).add_(x).mul_(0.5),
    "same twice": lambda net, x: net.conv(net.conv(x)),
    "twice itself": lambda net, x: net.conv(x) + net.conv(x),
    "weights from constants": lambda net, x: functional.conv2d(x, net.conv.weight / net.conv.weight.norm()),
}


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_the_numbers_of_torch(name, batch):
    torch.manual_seed(0)
    padding = {"asymmetric margins": 0}.get(name, 1)
    module = Called(
        FUNCTIONS[name], conv=nn.Conv2d(2 if name == "halves" else 4, 4, 3, padding=padding), fc=nn.Linear(4, 4)
    )
    convert(module, (batch, 4, 9, 8))


def test_a_vector_goes_through_linear_layers():
    net = with_statistics(nn.Sequential(nn.Linear(6, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)))
    assert kinds(convert(net, (2, 6))) == ["Linear", "Activate", "Linear"]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_convolutions_of_any_geometry(data):
    draw = data.draw
    groups, width = draw(st.sampled_from([(1, 5), (2, 3), (4, 1), (4, 2)]))
    inputs, outputs = groups * width, groups * draw(st.integers(1, 3))
    kernel, dilation = [(draw(st.integers(1, 4)), draw(st.integers(1, 3))) for _ in range(2)], draw(st.integers(1, 2))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    conv = nn.Conv2d(
        inputs,
        outputs,
        kernel[0],
        stride,
        (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        dilation,
        groups,
        bias=draw(st.booleans()),
    )
    torch.manual_seed(0)
    convert(conv, (1, inputs, draw(st.integers(9, 12)), draw(st.integers(9, 12))))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_pooling_of_any_geometry(data):
    draw = data.draw
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    ceil = draw(st.booleans())
    net: nn.Module = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    if draw(st.booleans()):
        net = nn.AvgPool2d(kernel, stride, padding, ceil, count_include_pad=draw(st.booleans()))
    convert(net, (1, 3, draw(st.integers(4, 9)), draw(st.integers(4, 9))))


# --- what is merged ----------------------------------------------------------------------------------------


def test_batch_norms_and_activations_become_part_of_convolutions():
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5, eps=1e-3), nn.ReLU6(), nn.Dropout()
    )
    graph = convert(with_statistics(net), (1, 3, 8, 8))
    (node,) = graph.nodes
    assert (node.name, node.layer.activation, node.layer.batch_norm) == ("0", "relu6", False)


def test_a_tensor_that_others_read_is_not_changed():
    net = Called(lambda net, x: (y := net.conv(x)) + net.norm(y), conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3))
    assert kinds(convert(with_statistics(net), (1, 3, 4, 4))) == ["Conv", "Affine", "Add"]


def test_batch_norm_before_a_convolution_stays():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 5, 3, padding=1))
    graph = convert(with_statistics(net), (1, 3, 8, 8))
    assert kinds(graph) == ["Affine", "Conv"]
    assert graph.nodes[0].layer.activation == "relu"


def test_means_of_the_whole_map_are_one_layer():
    for name in ("sums", "two squeezes", "flat pixels"):
        graph = convert(Called(FUNCTIONS[name], conv=nn.Conv2d(4, 4, 1)), (1, 4, 9, 8))
        assert "GlobalPool" in kinds(graph)
        assert not {"WindowMean", "Affine"} & {*kinds(graph)}


class Rep(nn.Module):
    """A block of RepVGG."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, groups=groups), nn.BatchNorm2d(channels))
        self.point = nn.Sequential(nn.Conv2d(channels, channels, 1, groups=groups), nn.BatchNorm2d(channels))
        self.identity = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.dense(x) + self.point(x) + self.identity(x))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_branches_of_convolutions_become_one(groups):
    graph = convert(with_statistics(Rep(6, groups)), (1, 6, 7, 7))
    (node,) = graph.nodes
    assert node.layer.activation == "relu"


def test_other_branches_stay():
    different = Called(lambda net, x: net.a(x) + net.b(x), a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1, groups=2))
    assert len(convert(different, (1, 4, 5, 5)).nodes) == 3
    apart = Called(lambda net, x: net.a(x)[:, :, :-1] + net.b(x), a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, (2, 1)))
    with pytest.raises(UsageError, match="the operator slice cannot be converted: only channels are selected"):
        convert(apart, (1, 4, 5, 5))


def test_nodes_have_the_names_of_modules():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()))
    assert [node.name for node in convert(net, (1, 3, 5, 5)).nodes] == ["0", "1.0"]
    shared = Called(lambda net, x: net.conv(net.conv(x)), conv=nn.Conv2d(3, 3, 1))
    assert [node.name for node in convert(shared, (1, 3, 5, 5)).nodes] == ["conv", "conv.conv2d"]


# --- what is refused ---------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


REFUSED = {
    r"the operator transpose cannot be converted: axes change places": Attention(),
    r"layer 1: the operator leaky_relu cannot be converted$": nn.Sequential(nn.Conv2d(3, 3, 1), nn.LeakyReLU()),
    r"layer 0: the operator hardtanh cannot be converted: its limits are -1.0 and 1.0, not 0 and 6": nn.Sequential(
        nn.Hardtanh()
    ),
    r"layer 0: the operator group_norm cannot be converted": nn.Sequential(nn.GroupNorm(1, 3)),
    r"layer 0: the operator conv_transpose2d cannot be converted": nn.Sequential(nn.ConvTranspose2d(3, 3, 2)),
    r"layer pool: the operator adaptive_avg_pool2d cannot be converted: a map of 8x8 does not divide": Called(
        lambda net, x: net.pool(x), pool=nn.AdaptiveAvgPool2d(3)
    ),
    r"the network: the operator add cannot be converted: its constant of the shape \(8, 8\)": Called(
        lambda net, x: x + torch.ones(8, 8)
    ),
    r"layer fc: the operator linear cannot be converted: it is applied along an axis": Called(
        lambda net, x: net.fc(x), fc=nn.Linear(8, 8)
    ),
    r"the network: the operator flip cannot be converted": Called(lambda net, x: x.flip(1)),
    r"Called has an output that no layer computes": Called(lambda net, x: functional.dropout(x, 0.5, False)),
    r"torch cannot export Called: ": Called(lambda net, x: x if x.sum() > 0 else -x),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_layer_is_refused_in_one_line(message):
    with pytest.raises(UsageError) as caught:
        to_graph(REFUSED[message], torch.zeros(1, 3, 8, 8))
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_other_inputs_are_refused():
    with pytest.raises(
        UsageError, match=r"inputs \(N, C, H, W\) or \(N, C\) of float32, not \(1, 3, 8, 8\) of float16"
    ):
        to_graph(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8, dtype=torch.float16))
    with pytest.raises(UsageError, match=r"not \(1, 3, 8\) of float32"):
        to_graph(nn.ReLU(), torch.zeros(1, 3, 8))


def test_the_module_stays_in_its_mode():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3).eval())
    to_graph(net, torch.zeros(1, 3, 8, 8))
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
