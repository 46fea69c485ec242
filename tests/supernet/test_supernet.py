"""Elastic networks: sharing, extraction, sorting, recalibration and files."""

import json
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from ofa_profiler import Architecture, Stage, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.sorting import sort_channels
from ofa_search.supernet.supernet import Supernet, save_supernet

SPACE = get_space("cifar-mbv3")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def supernet():
    """In eval mode, every tensor random, BatchNorm statistics included."""
    torch.manual_seed(0)
    net = Supernet(SPACE).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.2)
        elif name.endswith("matrix"):
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return net.double()


def images(count=2, size=32, seed=0):
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return [SPACE.largest, SPACE.smallest, *(SPACE.sample(rng) for _ in range(count - 2))]


def uniform(kernel_size=7, expand_ratio=6, depth=4):
    stage = Stage((kernel_size,) * depth, (expand_ratio,) * depth)
    return Architecture(SPACE.name, 32, (stage,) * len(SPACE.stage_widths))


# --- the elastic forward and extraction --------------------------------------------------------------


def test_extraction_computes_what_the_elastic_forward_does(supernet):
    for architecture in samples(8):
        with torch.no_grad():
            expected = supernet(images(), architecture)
            subnet = supernet.extract(architecture).double()
            assert not subnet.training
            # Extraction stores single precision.
            torch.testing.assert_close(subnet(images()), expected, rtol=1e-3, atol=1e-5)


def test_an_extracted_subnet_shares_nothing_with_the_supernet(supernet):
    subnet = supernet.extract(SPACE.smallest)
    before = supernet.weights(SPACE.smallest)
    for parameter in subnet.parameters():
        parameter.data.zero_()
    after = supernet.weights(SPACE.smallest)
    assert all((before[name] == after[name]).all() for name in before)
    assert set(before) == {name for name in subnet.state_dict() if not name.endswith("num_batches_tracked")}


def test_extraction_has_the_size_that_the_space_says(supernet):
    for architecture in samples(3):
        count = sum(parameter.numel() for parameter in supernet.extract(architecture).parameters())
        assert count == SPACE.params(architecture)


def test_no_call_changes_what_another_computes(supernet):
    first, second = samples(4)[2:]
    with torch.no_grad():
        alone = supernet(images(), first)
        supernet(images(size=24), second)
        assert torch.equal(supernet(images(), first), alone)


def test_subnets_of_one_step_add_up_their_gradients(supernet):
    batch, chosen = images(), samples(4)
    expected: dict[str, torch.Tensor] = {}
    for architecture in chosen:
        supernet.zero_grad()
        supernet(batch, architecture).square().sum().backward()
        for name, parameter in supernet.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad.clone()
    supernet.zero_grad()
    sum(supernet(batch, architecture).square().sum() for architecture in chosen).backward()
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(parameter.grad, expected.get(name))


def test_every_parameter_of_the_supernet_learns_from_some_subnet(supernet):
    supernet.train()
    for kernel_size in (3, 7):
        supernet(images(4), uniform(kernel_size)).square().sum().backward()
    idle = [name for name, parameter in supernet.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert idle == []


def test_channels_out_of_use_neither_learn_nor_count(supernet):
    supernet.train()
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet(images(4), uniform(3, 3, 2)).square().sum().backward()
    width = 3 * SPACE.stage_widths[0]
    block = supernet.get_submodule("stage0_block1.depth_conv")
    assert (block.conv.weight.grad[width:] == 0).all()
    assert block.conv.weight.grad[:width].abs().sum() > 0
    mean = "stage0_block1.depth_conv.bn.running_mean"
    after = supernet.state_dict()
    assert torch.equal(after[mean][width:], before[mean][width:])
    assert not torch.equal(after[mean][:width], before[mean][:width])
    deeper = "stage0_block2.depth_conv.bn.running_mean"
    assert torch.equal(after[deeper], before[deeper])


def test_training_mode_normalises_with_the_batch():
    torch.manual_seed(0)
    net = Supernet(SPACE).train()
    batch = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        logits = net(batch, SPACE.smallest)
        for name, tensor in net.state_dict().items():
            if name.endswith("running_mean"):
                tensor.fill_(100.0)
        torch.testing.assert_close(net(batch, SPACE.smallest), logits)


def test_an_architecture_of_another_space_is_refused(supernet):
    other = get_space("ofa-mbv3-w1.0").smallest
    with pytest.raises(UsageError, match="space"):
        supernet(images(), other)
    with pytest.raises(UsageError, match="space"):
        supernet.extract(other)


def test_other_numbers_of_classes():
    net = Supernet(SPACE.with_classes(3)).eval()
    assert net(torch.zeros(1, 3, 32, 32), SPACE.smallest).shape == (1, 3)
    assert net.extract(SPACE.smallest)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


# --- channel importance -------------------------------------------------------------------------------


def test_sorting_keeps_what_the_largest_and_the_kept_networks_compute(supernet):
    kept = [uniform(expand_ratio=4), uniform(expand_ratio=4, kernel_size=3, depth=2)]
    with torch.no_grad():
        before = [supernet(images(), architecture) for architecture in (SPACE.largest, *kept)]
        narrow = supernet(images(), uniform(expand_ratio=3))
        sort_channels(supernet, keep=[uniform(expand_ratio=4)])
        for architecture, logits in zip((SPACE.largest, *kept), before, strict=True):
            torch.testing.assert_close(supernet(images(), architecture), logits)
        assert not torch.allclose(supernet(images(), uniform(expand_ratio=3)), narrow)


def test_sorting_puts_the_most_important_channels_first(supernet):
    sort_channels(supernet)
    importance = supernet.get_submodule("stage1_block0.point_linear.conv").weight.abs().sum((0, 2, 3))
    assert (importance.diff() <= 0).all()
    gates = supernet.get_submodule("stage1_block0.se.expand").weight.abs().sum((0, 2, 3))
    assert (gates.diff() <= 0).all()


@pytest.mark.slow
def test_a_sorted_narrow_network_loses_less(supernet):
    """What the sorting is for: dropping the least important channels changes the output least."""
    with torch.no_grad():
        full = supernet(images(64), uniform())
        before = (supernet(images(64), uniform(expand_ratio=4)) - full).square().mean()
        sort_channels(supernet)
        after = (supernet(images(64), uniform(expand_ratio=4)) - full).square().mean()
    assert after < before


# --- recalibration ------------------------------------------------------------------------------------


def test_recalibration_measures_the_statistics_of_the_batches(supernet):
    subnet = supernet.extract(SPACE.smallest).double()
    batches = [images(12, 24, seed=1), images(4, 24, seed=2)]
    recalibrate(subnet, batches)
    assert not any(module.training for module in subnet.modules())
    assert all(m.momentum == 0.1 for m in subnet.modules() if isinstance(m, torch.nn.BatchNorm2d))
    convolved = [subnet.stem.conv.conv(batch) for batch in batches]
    mean = sum(c.mean((0, 2, 3)) * len(c) for c in convolved) / 16
    var = sum(c.var((0, 2, 3)) * len(c) for c in convolved) / 16
    torch.testing.assert_close(subnet.stem.conv.bn.running_mean, mean)
    torch.testing.assert_close(subnet.stem.conv.bn.running_var, var)


@pytest.mark.slow
def test_recalibration_on_one_batch_makes_eval_equal_to_batch_statistics(supernet):
    subnet = supernet.extract(SPACE.smallest).double()
    batch = images(512, 24)
    recalibrate(subnet, [batch])
    with torch.no_grad():
        evaluated = subnet(batch)
        expected = subnet.train()(batch)
    assert (evaluated - expected).abs().max() < 0.02 * expected.abs().max()  # N against N - 1 in the variance


def test_recalibration_needs_images(supernet):
    with pytest.raises(UsageError, match="batch"):
        recalibrate(supernet.extract(SPACE.smallest), [])


# --- files ----------------------------------------------------------------------------------------------


def test_a_saved_supernet_reads_back(supernet, tmp_path):
    supernet = supernet.float()
    path = save_supernet(supernet, tmp_path / "net.safetensors", metadata={"recipe": "none"})
    for given in (path, path.with_suffix(".json")):
        loaded = Supernet.from_checkpoint(given)
        assert not loaded.training
        assert loaded.space == SPACE
        for name, tensor in supernet.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["space"] == "cifar-mbv3"
    assert description["recipe"] == "none"


def test_half_precision_halves_the_file_and_keeps_the_logits(supernet, tmp_path):
    supernet = supernet.float()
    half = save_supernet(supernet, tmp_path / "half", dtype=np.float16)
    full = save_supernet(supernet, tmp_path / "full")
    assert half.stat().st_size < 0.6 * full.stat().st_size
    batch = images().float()
    with torch.no_grad():
        expected = supernet(batch, SPACE.smallest)
        logits = Supernet.from_checkpoint(half)(batch, SPACE.smallest)
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_what_half_precision_cannot_hold_is_refused(supernet, tmp_path):
    supernet.state_dict()["stem.conv.bn.running_var"].fill_(1e6)
    with pytest.raises(UsageError, match=r"stem\.conv\.bn\.running_var.*float16"):
        save_supernet(supernet, tmp_path / "net", dtype=np.float16)
    assert list(tmp_path.iterdir()) == []


def test_number_of_classes_travels_with_the_file(tmp_path):
    path = save_supernet(Supernet(SPACE.with_classes(7)), tmp_path / "net")
    assert Supernet.from_checkpoint(path, space="cifar-mbv3").space.n_classes == 7
    with pytest.raises(InputFileError, match=r"of space cifar-mbv3, not of ofa-mbv3-w1\.0"):
        Supernet.from_checkpoint(path, space="ofa-mbv3-w1.0")


def break_safetensors(path, how):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    description = json.loads(path.with_suffix(".json").read_text())
    how(tensors, description)
    save_file(tensors, path, metadata={"supernet": json.dumps(description)})


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (lambda t, d: t.pop("stem.conv.bn.bias"), "'stem.conv.bn.bias' is missing"),
        (lambda t, d: t.update(extra=torch.zeros(1)), "'extra' is not expected"),
        (lambda t, d: t.update({"classifier.linear.bias": torch.zeros(3)}), "'classifier.linear.bias' has shape"),
        (lambda t, d: t["classifier.linear.bias"].fill_(float("nan")), "not finite"),
        (lambda t, d: t["stem.conv.bn.running_var"].fill_(-1), "negative variance"),
        (lambda t, d: d.update(format=99), "format 99"),
        (lambda t, d: d.update(space="other"), "unknown search space 'other'"),
        (lambda t, d: d.update(n_classes="ten"), "n_classes is 'ten'"),
    ],
)
def test_a_wrong_file_of_ours_is_named_with_its_first_problem(tmp_path, how, problem):
    path = save_supernet(Supernet(SPACE), tmp_path / "net")
    break_safetensors(path, how)
    check_refused(path, problem, space=None)


def test_other_safetensors_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    check_refused(path, "not of a supernet", space=None)
    path.write_bytes(path.read_bytes()[:-2])
    check_refused(path, "not a safetensors file, or cut short", space=None)


def check_refused(path, problem, space="ofa-mbv3-w1.0"):
    with pytest.raises(InputFileError) as caught:
        Supernet.from_checkpoint(path, space=space)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message


def test_a_missing_file(tmp_path):
    check_refused(tmp_path / "none.pth", "no such file")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_or_foreign_pickles(tmp_path, legacy):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path, _use_new_zipfile_serialization=not legacy)
    check_refused(path, "is missing")
    content = path.read_bytes()
    for size in (len(content) - 100, len(content) // 2, 1, 0):
        path.write_bytes(content[:size])
        check_refused(path, "")
    path.write_bytes(b"<html>404 not found</html>")
    check_refused(path, "")


class Evil:
    """Runs code when it is unpickled without care."""

    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("content", [[1], {}, {"state_dict": {"a": 1}}, {"state_dict": {1: torch.zeros(1)}}])
def test_pickles_of_other_things(tmp_path, content):
    path = tmp_path / "net.pth"
    torch.save(content, path)
    check_refused(path, "state_dict")


def test_nothing_in_a_pickle_is_run(tmp_path, capsys):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": Evil()}, path)
    check_refused(path, "is missing")  # the weights are read, the rest is not even looked at
    torch.save({"state_dict": {"a": Evil()}}, path)
    check_refused(path, "tensors only")
    assert "ran" not in capsys.readouterr().out


def test_a_published_file_needs_the_name_of_its_space(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(UsageError, match="does not name its search space"):
        Supernet.from_checkpoint(path)


# --- memory -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is told")
def test_freed_memory_is_kept():
    """In a process of its own, as it cannot be undone: blocks that are used again cost no page faults."""
    script = """
import resource
from ofa_search.training.memory import keep_freed_memory
import torch
kept = keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(3 << 20) for _ in range(16)]
    del blocks
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, faults < 100)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
