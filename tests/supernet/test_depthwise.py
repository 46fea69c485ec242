"""Depthwise convolution for training: the same values and gradients as torch's own."""

from __future__ import annotations

import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ofa_profiler import get_space
from ofa_search.supernet import depthwise, elastic
from ofa_search.supernet.depthwise import depthwise_conv2d
from ofa_search.supernet.supernet import Supernet

FORMATS = (torch.contiguous_format, torch.channels_last)
ON_X86 = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def plain(x, weight, stride):
    return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


def example(kernel_size, height, width, *, channels=4, batch=2, dtype=torch.float64, memory_format=FORMATS[0]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=generator).to(dtype, memory_format=memory_format)
    weight = torch.randn(channels, 1, kernel_size, kernel_size, generator=generator).to(dtype)
    return x.requires_grad_(), weight.requires_grad_()


def gradients(convolution, x, weight, stride):
    y = convolution(x, weight, stride)
    generator = torch.Generator().manual_seed(1)
    return y, *torch.autograd.grad(y, (x, weight), torch.randn(y.shape, generator=generator).to(y))


@settings(deadline=None, max_examples=200)
@given(
    kernel_size=st.sampled_from([3, 5, 7, 9]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    memory_format=st.sampled_from(FORMATS),
)
def test_values_and_gradients_are_those_of_torch(kernel_size, stride, height, width, memory_format):
    x, weight = example(kernel_size, height, width, memory_format=memory_format)
    for ours, expected in zip(
        gradients(depthwise_conv2d, x, weight, stride), gradients(plain, x, weight, stride), strict=True
    ):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("size", [4, 7, 14, 16, 32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [5, 7])
def test_single_precision_errs_by_rounding_only(kernel_size, stride, size):
    """A weight's gradient sums up to 16,384 products here, one after the other: rounding grows to 1e-5."""
    x, weight = example(kernel_size, size, size, channels=24, batch=16, dtype=torch.float32, memory_format=FORMATS[1])
    exact = gradients(plain, x.detach().double().requires_grad_(), weight.detach().double().requires_grad_(), stride)
    for ours, right in zip(gradients(depthwise_conv2d, x, weight, stride), exact, strict=True):
        assert (ours - right).abs().max() < 1e-5 * right.abs().max()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [5, 7])
def test_gradients_are_slopes(kernel_size, stride):
    x, weight = example(kernel_size, 8, 6, channels=2)
    assert torch.autograd.gradcheck(lambda x, weight: depthwise_conv2d(x, weight, stride), (x, weight))


def test_only_what_is_asked_for_is_computed(monkeypatch):
    x, weight = example(7, 8, 8)
    _, _, expected = gradients(plain, x, weight, 1)
    monkeypatch.setattr(depthwise, "_input_gradient", None)  # calling it would fail
    y = depthwise_conv2d(x.detach(), weight, 1)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator).to(y))
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.skipif(not ON_X86, reason="the faster gradient is for oneDNN on x86")
def test_it_is_used_where_it_helps(monkeypatch):
    """In training, for kernels wider than 3; and the gradients of the whole supernet stay what they were."""
    space = get_space("cifar-mbv3")
    torch.manual_seed(0)
    supernet = Supernet(space).double().train()
    images = torch.randn(4, 3, 24, 24, dtype=torch.float64)

    def loss_gradients():
        supernet.zero_grad()
        supernet(images, space.largest).square().sum().backward()
        return {name: parameter.grad for name, parameter in supernet.named_parameters() if parameter.grad is not None}

    calls = []
    gradient = depthwise._weight_gradient

    def counted(*arguments):
        calls.append(arguments)
        return gradient(*arguments)

    monkeypatch.setattr(depthwise, "_weight_gradient", counted)
    ours = loss_gradients()
    assert len(calls) == sum(stage.depth for stage in space.largest.stages)
    monkeypatch.setattr(elastic, "depthwise_conv2d", plain)
    expected = loss_gradients()
    assert ours.keys() == expected.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, expected[name], msg=name)


def test_a_network_of_any_origin_trains_with_it_for_a_while():
    """Only where it computes the same; the gradients are those of the modules as they were, which come back."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 6, 7, 2, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, 5, padding=2, groups=6, padding_mode="circular"),
        nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6),
        nn.Conv2d(6, 6, (5, 3), padding=(2, 1), groups=6),
        nn.Conv2d(6, 6, 3, padding=0, groups=6),
        nn.Conv2d(6, 12, 3, padding=1, groups=6),
    ).double()
    before, names, images = list(network), list(network.state_dict()), torch.randn(2, 6, 13, 13, dtype=torch.float64)

    def gradients_of_all():
        network.zero_grad()
        network(images).square().sum().backward()
        return [parameter.grad for parameter in network.parameters()]

    expected = gradients_of_all()
    with depthwise.fast_depthwise(network):
        assert [type(module) for module in network[:2]] == [depthwise.DepthwiseConv2d] * 2
        assert list(network)[2:] == before[2:]
        assert list(network.state_dict()) == names
        torch.testing.assert_close(gradients_of_all(), expected)
        network.eval()
    assert list(network) == before
    assert not any(module.training for module in network)
