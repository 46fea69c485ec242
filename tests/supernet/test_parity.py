"""The supernets give the same numbers as the published code, from its own checkpoint files."""

import copy
import re

import numpy as np
import pytest
import torch
from support import reference

from ofa_profiler.errors import InputFileError
from ofa_search.supernet.ofa_names import published_names, simplified
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.sorting import sort_channels
from ofa_search.supernet.supernet import Supernet


@pytest.fixture(scope="module", params=reference.PUBLISHED)
def pair(request, tmp_path_factory):
    """(the reference's supernet, ours from its checkpoint)."""
    torch.set_num_threads(1)
    theirs = reference.supernet(request.param, seed=1)
    path = tmp_path_factory.mktemp("checkpoint") / request.param
    torch.save({"state_dict": theirs.state_dict()}, path)
    return theirs, Supernet.from_checkpoint(path, space=request.param)


def logits(pair, architecture, dtype, size):
    """Of the reference's subnet, ours, the reference's elastic forward, ours; (4, images, classes)."""
    theirs, ours = (network.to(dtype) for network in pair)
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(2, 3, size, size, generator=generator).to(dtype)
    theirs.set_active_subnet(**reference.choice(architecture))
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


@pytest.mark.slow
def test_every_layer_computes_what_the_reference_does(pair):
    """In double precision, so that what tells one image from another is compared, however small it is.

    The images have a size at which maps of odd height occur.
    """
    for architecture in architectures(pair[1].space, 10, seed=2):
        subnet, our_subnet, elastic, our_elastic = logits(pair, architecture, torch.float64, size=72)
        spread = (subnet[0] - subnet[1]).abs().max()
        assert spread > 1e-8 * subnet.abs().max()
        assert (our_subnet - subnet).abs().max() < 1e-4 * spread
        assert (our_elastic - elastic).abs().max() < 1e-4 * spread


def test_macs_are_those_that_the_reference_counts(pair):
    theirs, ours = pair
    for architecture in architectures(ours.space, 20, seed=4):
        assert ours.space.macs(architecture) / 1e6 == pytest.approx(reference.macs(architecture, theirs))


@pytest.mark.slow
def test_logits_equal_those_of_the_reference(pair):
    for architecture in architectures(pair[1].space, 50, seed=3):
        subnet, our_subnet, elastic, our_elastic = logits(pair, architecture, torch.float32, architecture.resolution)
        assert (our_subnet - subnet).abs().max() < 1e-4 * subnet.abs().max()
        assert (our_elastic - elastic).abs().max() < 1e-4 * elastic.abs().max()


# --- files ----------------------------------------------------------------------------------------------


def old_name(name: str) -> str:
    """As in files of before the authors renamed blocks, and wrapped the layers of elastic convolutions."""
    name = name.replace(".conv.depth_conv", ".mobile_inverted_conv.depth_conv")
    name = name.replace(".conv.point_linear", ".mobile_inverted_conv.point_linear")
    name = name.replace(".conv.inverted_bottleneck", ".mobile_inverted_conv.inverted_bottleneck")
    return name.replace(".bn.bn.", ".bn.").replace(".linear.linear.", ".linear.")


def test_older_files_read_to_the_same_supernet(pair, tmp_path):
    theirs, ours = pair
    state = {old_name(name): tensor for name, tensor in theirs.float().state_dict().items()}
    if ours.space.name != "ofa-resnet50":
        assert any(".mobile_inverted_conv." in name for name in state)
    state = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    path = tmp_path / "old"
    torch.save({"state_dict": state, "epoch": 1}, path, _use_new_zipfile_serialization=False)
    loaded = Supernet.from_checkpoint(path, space=ours.space.name).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in ours.float().state_dict().items())


@pytest.mark.parametrize("wanted", reference.PUBLISHED)
def test_a_file_of_another_space_is_refused(pair, wanted, tmp_path):
    theirs, ours = pair
    path = tmp_path / "net.pth"
    torch.save({"state_dict": theirs.state_dict()}, path)
    if wanted != ours.space.name:
        with pytest.raises(InputFileError, match=rf"net\.pth: '.*check that it is a supernet of {re.escape(wanted)}"):
            Supernet.from_checkpoint(path, space=wanted)


# --- what is done to the weights ---------------------------------------------------------------------


@pytest.mark.slow
def test_sorting_gives_the_order_of_the_reference(pair):
    theirs, ours = copy.deepcopy(pair)
    theirs.float().re_organize_middle_weights()
    sort_channels(ours.float())
    for architecture in architectures(ours.space, 3, seed=5):
        _, _, elastic, our_elastic = logits((theirs, ours), architecture, torch.float64, size=72)
        assert (our_elastic - elastic).abs().max() < 1e-4 * (elastic[0] - elastic[1]).abs().max()


@pytest.mark.slow
def test_training_moves_the_statistics_as_the_reference_does(pair):
    theirs, ours = (network.double().train() for network in copy.deepcopy(pair))
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    names = published_names(ours.state_dict(), [slot.name for slot in ours.space.slots])
    for architecture in architectures(ours.space, 3, seed=6):
        theirs.set_active_subnet(**reference.choice(architecture))
        torch.testing.assert_close(ours(images, architecture), theirs(images))
    state = {simplified(name): tensor for name, tensor in theirs.state_dict().items()}
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, state[names[name]], msg=name)


def test_recalibration_gives_the_statistics_of_the_reference(pair):
    theirs, ours = pair
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    architecture = ours.space.smallest
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(count, 3, 96, 96, generator=generator) for count in (48, 24)]
    theirs.set_active_subnet(**reference.choice(architecture))
    subnet, our_subnet = theirs.get_active_subnet().eval(), ours.extract(architecture)
    set_running_statistics(subnet, [(batch, None) for batch in batches])
    recalibrate(our_subnet, batches)
    with torch.no_grad():
        expected = subnet(batches[0])
        # Theirs is the variance of the images at hand, ours estimates that of all images: N against N - 1.
        assert (our_subnet(batches[0]) - expected).abs().max() < 0.1 * (expected[0] - expected[1]).abs().max()
