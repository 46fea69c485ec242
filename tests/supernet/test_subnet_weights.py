"""A subnet's weights, cut in numpy and in torch by the same function: names, shapes and values."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
import pytest
import torch

from ofa_profiler import Architecture
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.parameters import Array, parameter_shapes
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights, to_weights
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_search.supernet.bn_statistics import StatisticsSum
from ofa_search.supernet.checkpoint import Checkpoint
from ofa_search.supernet.subnet_weights import cut, supernet_shapes
from ofa_search.supernet.supernet import Supernet, as_trained


@pytest.fixture(scope="module", params=space_names())
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return get_space(request.param)


@pytest.fixture(scope="module")
def checkpoint(space: SearchSpace) -> Checkpoint:
    """Every tensor made up, the matrices for kernels far from the identity."""
    rng = np.random.default_rng(1)
    tensors: dict[str, Array] = {}
    for name, shape in supernet_shapes(space).items():
        scale = 0.2 if len(shape) == 1 else sqrt(2 / prod(shape[1:]))
        tensors[name] = rng.normal(0, scale, shape).astype(np.float32)
        if name.endswith("_matrix"):
            tensors[name] += np.eye(len(tensors[name]), dtype=np.float32)
        elif name.endswith(("running_var", "bn.weight")):
            tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return Checkpoint(space, tensors)


def architectures(space: SearchSpace) -> list[Architecture]:
    rng = np.random.default_rng(2)
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(6))]


def test_names_and_shapes_are_those_of_the_elastic_network(space: SearchSpace) -> None:
    state = Supernet(space).state_dict()
    assert supernet_shapes(space) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_numpy_cuts_what_torch_cuts(space: SearchSpace, checkpoint: Checkpoint) -> None:
    supernet = as_trained(checkpoint).supernet
    for architecture in architectures(space):
        ours, theirs = checkpoint.weights(architecture), supernet.weights(architecture)
        assert {name: array.shape for name, array in ours.items()} == parameter_shapes(space.layout(architecture))
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype == np.float32
            # Sums of 25 or 49 products may be taken in another order; all else is a copy.
            exactly = array.ndim != 4 or array.shape[-1] == checkpoint.tensors[name].shape[-1]
            np.testing.assert_allclose(ours[name], array, rtol=0, atol=0 if exactly else 1e-6, err_msg=name)


def test_the_elastic_network_computes_with_what_is_cut(space: SearchSpace, checkpoint: Checkpoint) -> None:
    torch.set_num_threads(1)
    supernet = as_trained(checkpoint).supernet.double()
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for architecture in architectures(space)[:4]:
        network = StaticNetwork(space.layout(architecture))
        load_weights(network, checkpoint.weights(architecture))
        with torch.no_grad():
            logits, expected = network.double().eval()(images), supernet(images, architecture)
        assert (logits - expected).abs().max() < 1e-3 * expected.abs().max()


def test_weights_are_copies(checkpoint: Checkpoint) -> None:
    before = {name: tensor.copy() for name, tensor in checkpoint.tensors.items()}
    for array in checkpoint.weights(checkpoint.space.largest).values():
        array.fill(7.0)
    for name, tensor in before.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], tensor)


def test_a_table_of_statistics_is_applied(checkpoint: Checkpoint) -> None:
    space, architecture = checkpoint.space, checkpoint.space.smallest
    layout = space.layout(architecture)
    statistics = random_weights(layout, np.random.default_rng(3))
    total = StatisticsSum()
    total.add(layout, statistics)
    weights = Checkpoint(space, checkpoint.tensors, calibration=total.table()).weights(architecture)
    plain = checkpoint.weights(architecture)
    for name, array in weights.items():
        expected = statistics if "running" in name else plain
        np.testing.assert_allclose(array, expected[name], rtol=1e-6, err_msg=name)


def test_weights_survive_torch(checkpoint: Checkpoint) -> None:
    for name, array in to_weights(as_trained(checkpoint).supernet).items():
        np.testing.assert_array_equal(array, checkpoint.tensors[name])


def test_a_smaller_kernel_is_the_centre_of_the_larger_through_the_matrices() -> None:
    """7 -> 5 -> 3, written out once more."""
    rng = np.random.default_rng(0)
    tensors = {"a.weight": rng.normal(size=(6, 2, 7, 7)), "a.bias": rng.normal(size=6)}
    tensors |= {"a.7to5_matrix": rng.normal(size=(25, 25)), "a.5to3_matrix": rng.normal(size=(9, 9))}
    five = np.zeros((4, 1, 5, 5))
    three = np.zeros((4, 1, 3, 3))
    for channel in range(4):
        centre = tensors["a.weight"][channel, 0, 1:6, 1:6].ravel()
        five[channel, 0] = (tensors["a.7to5_matrix"] @ centre).reshape(5, 5)
        three[channel, 0] = (tensors["a.5to3_matrix"] @ five[channel, 0, 1:4, 1:4].ravel()).reshape(3, 3)
    np.testing.assert_allclose(cut(tensors, "a.weight", (4, 1, 5, 5)), five)
    np.testing.assert_allclose(cut(tensors, "a.weight", (4, 1, 3, 3)), three)
    np.testing.assert_array_equal(cut(tensors, "a.weight", (4, 1, 7, 7)), tensors["a.weight"][:4, :1])
    np.testing.assert_array_equal(cut(tensors, "a.bias", (4,)), tensors["a.bias"][:4])
    for name, array in tensors.items():
        torched = {key: torch.from_numpy(value) for key, value in tensors.items()}
        shape = (4, 1, 3, 3) if array.ndim == 4 else array.shape
        np.testing.assert_allclose(cut(torched, name, shape).numpy(), cut(tensors, name, shape))
