"""The supernets give the same numbers as the published code, from its own checkpoint files."""

import numpy as np
import pytest
import reference
import torch

from ofa_search.supernet import Supernet


@pytest.fixture(scope="module", params=reference.PUBLISHED)
def pair(request, tmp_path_factory):
    """(the reference's supernet, ours from its checkpoint)."""
    torch.set_num_threads(1)
    theirs = reference.supernet(request.param, seed=1)
    path = tmp_path_factory.mktemp("checkpoint") / request.param
    torch.save({"state_dict": theirs.state_dict()}, path)
    return theirs, Supernet.from_checkpoint(path, space=request.param)


def logits(pair, architecture, dtype):
    """Of the reference's subnet, ours, the reference's elastic forward, ours; (4, images, classes)."""
    theirs, ours = (network.to(dtype) for network in pair)
    generator = torch.Generator().manual_seed(architecture.resolution)
    size = architecture.resolution
    images = torch.randn(2, 3, size, size, generator=generator).to(dtype)
    reference.select(theirs, architecture)
    subnet = ours.extract(architecture)
    assert not any(module.training for module in subnet.modules())
    with torch.no_grad():
        outputs = (
            theirs.get_active_subnet().eval().to(dtype)(images),
            subnet.to(dtype)(images),
            theirs(images),
            ours(images, architecture),
        )
    return torch.stack(outputs)


def architectures(space, count, seed):
    rng = np.random.default_rng(seed)
    return [space.largest, space.smallest, *(space.sample(rng) for _ in range(count - 2))]


def test_every_layer_computes_what_the_reference_does(pair):
    """In double precision, so that what tells one image from another is compared, however small it is."""
    for architecture in architectures(pair[1].space.with_resolutions([128, 144]), 10, seed=2):
        subnet, our_subnet, elastic, our_elastic = logits(pair, architecture, torch.float64)
        spread = (subnet[0] - subnet[1]).abs().max()
        assert spread > 1e-8 * subnet.abs().max()
        assert (our_subnet - subnet).abs().max() < 1e-4 * spread
        assert (our_elastic - elastic).abs().max() < 1e-4 * spread


@pytest.mark.slow
def test_logits_equal_those_of_the_reference(pair):
    for architecture in architectures(pair[1].space, 50, seed=3):
        subnet, our_subnet, elastic, our_elastic = logits(pair, architecture, torch.float32)
        assert (our_subnet - subnet).abs().max() < 1e-4 * subnet.abs().max()
        assert (our_elastic - elastic).abs().max() < 1e-4 * elastic.abs().max()
