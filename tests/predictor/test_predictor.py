"""The accuracy predictor: the published numbers, the published file, and files that mean harm."""

from __future__ import annotations

import importlib.util
import pickle
import random
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.torch_file import read_state_dict

W12 = get_space("ofa-mbv3-w1.2")
EXPRESSIBLE = (128, 144, 160, 176, 192, 208, 224)


def mlp(*sizes: int, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def save(content: object, path: Path, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> Path:
    return shared_dir / "data" / "ofa" / "acc_predictor.pth"


def random_architectures(count: int, seed: int = 0) -> list[Architecture]:
    space = W12.with_resolutions(EXPRESSIBLE)
    return space.decode(space.sample_genomes(np.random.default_rng(seed), count))


def features_by_hand(architecture: Architecture) -> list[int]:
    """The 128 features, spelt out from their definition and nothing of ours."""
    kernels, expands = [0] * 60, [0] * 60
    for stage_number, stage in enumerate(architecture.stages):
        for block, (kernel, expand) in enumerate(zip(stage.kernel_sizes, stage.expand_ratios, strict=True)):
            at = 3 * (4 * stage_number + block)
            kernels[at + (3, 5, 7).index(kernel)] = 1
            expands[at + (3, 4, 6).index(expand)] = 1
    return kernels + expands + [int(architecture.resolution == r) for r in range(112, 225, 16)]


# --- the same numbers ----------------------------------------------------------------------------------


@pytest.fixture
def published_code(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The published `accuracy_predictor.py`, without the package around it, which wants torchvision."""
    spec = importlib.util.find_spec("ofa")
    if spec is None or spec.origin is None:
        pytest.skip("needs the reference code, PyPI's `ofa`")
    for name in ("ofa", "ofa.utils"):
        stand_in = types.ModuleType(name)
        stand_in.download_url = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, stand_in)
    path = Path(spec.origin).parent / "tutorial" / "accuracy_predictor.py"
    file_spec = importlib.util.spec_from_file_location("published_accuracy_predictor", path)
    assert file_spec is not None
    assert file_spec.loader is not None
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module


def test_equals_the_published_code(published: Path, published_code: types.ModuleType) -> None:
    theirs = published_code.AccuracyPredictor(pretrained=False, device="cpu")
    theirs.model.load_state_dict(torch.load(published, map_location="cpu"))
    architectures = random_architectures(600, seed=3)

    def padded(values: tuple[int, ...]) -> list[int]:
        return [*values, *[3] * (4 - len(values))]

    specs = [
        {
            "ks": [k for stage in a.stages for k in padded(stage.kernel_sizes)],
            "e": [e for stage in a.stages for e in padded(stage.expand_ratios)],
            "d": [stage.depth for stage in a.stages],
            "r": [a.resolution],
        }
        for a in architectures
    ]
    expected = theirs.predict_accuracy(specs)[:, 0].numpy()
    got = AccuracyPredictor.load(published).predict(architectures)
    assert np.abs(got - expected).max() < 1e-5
    assert np.ptp(got) > 0.02


@pytest.mark.parametrize("legacy", [False, True])
def test_equals_plain_linear_algebra(tmp_path: Path, legacy: bool) -> None:
    model = mlp(128, 40, 30, 1)
    with torch.no_grad():
        model[-1].bias += 0.5
    path = save(model.state_dict(), tmp_path / "p.pth", legacy=legacy)
    architectures = random_architectures(300)
    with torch.no_grad():
        expected = model(torch.tensor([features_by_hand(a) for a in architectures]).float())[:, 0].numpy()
    got = AccuracyPredictor.load(path).predict(architectures)
    assert np.abs(got - expected.clip(0, 1)).max() < 1e-6


def test_accuracy_does_not_depend_on_the_company(tmp_path: Path) -> None:
    """Bit for bit: in whatever batch an architecture is predicted, and by genome or by architecture."""
    predictor = AccuracyPredictor.load(save(mlp(128, 400, 400, 1).state_dict(), tmp_path / "p.pth"))
    space = W12.with_resolutions(EXPRESSIBLE)
    genomes = space.sample_genomes(np.random.default_rng(1), 2500)
    all_at_once = predictor.predict_genomes(space, genomes)
    order = np.random.default_rng(2).permutation(2500)
    assert (predictor.predict_genomes(space, genomes[order]) == all_at_once[order]).all()
    one_by_one = [predictor.predict([a])[0] for a in space.decode(genomes[:20])]
    assert (np.array(one_by_one) == all_at_once[:20]).all()


def test_accuracies_are_fractions(tmp_path: Path) -> None:
    model = mlp(128, 8, 1)
    with torch.no_grad():
        model[-1].weight *= 100
    accuracies = AccuracyPredictor.load(save(model.state_dict(), tmp_path / "p.pth")).predict(random_architectures(200))
    assert ((accuracies >= 0) & (accuracies <= 1)).all()


def test_nothing_to_predict(tmp_path: Path) -> None:
    predictor = AccuracyPredictor.load(save(mlp(128, 8, 1).state_dict(), tmp_path / "p.pth"))
    assert predictor.predict([]).shape == (0,)


def test_loading_and_predicting_import_no_torch(tmp_path: Path) -> None:
    path = save(mlp(128, 8, 1).state_dict(), tmp_path / "p.pth")
    code = f"""
import sys, numpy
from ofa_profiler import get_space
from ofa_search import AccuracyPredictor
space = get_space("ofa-mbv3-w1.2")
AccuracyPredictor.load({str(path)!r}).predict([space.sample(numpy.random.default_rng(0))])
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


# --- what it cannot express ----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> AccuracyPredictor:
    return AccuracyPredictor.load(save(mlp(128, 8, 1).state_dict(), tmp_path / "small.pth"))


def test_a_resolution_between_the_features_is_refused(small: AccuracyPredictor) -> None:
    """The published code counts 132 as 128 without a word."""
    odd = W12.with_resolutions([132]).sample(np.random.default_rng(0))
    with pytest.raises(UsageError, match="132"):
        small.predict([odd])
    assert small.resolutions == tuple(range(112, 225, 16))
    assert small.resolutions_of(W12) == EXPRESSIBLE


def test_a_space_of_other_resolutions_is_refused(small: AccuracyPredictor) -> None:
    with pytest.raises(UsageError, match="cifar-mbv3"):
        small.predict([get_space("cifar-mbv3").sample(np.random.default_rng(0))])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (mlp(100, 8, 1).state_dict(), "100 features"),
        (mlp(128, 8, 2).state_dict(), "2 outputs"),
        ({"conv.weight": torch.zeros(3)}, "not an accuracy predictor"),
        ({"0.weight": torch.zeros(3, 128), "0.bias": torch.zeros(4)}, "do not fit"),
        ({"0.weight": torch.full((1, 128), torch.nan), "0.bias": torch.zeros(1)}, "not finite"),
        ([1, 2], "no dict"),
        ({"epoch": 3}, "not a tensor"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        AccuracyPredictor.load(save(content, tmp_path / "p.pth"))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02.", b"hello, world", bytes(5000), b"\x80\x04N."])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.pth"
    path.write_bytes(content)
    with pytest.raises(InputFileError):
        AccuracyPredictor.load(path)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(InputFileError, match="cannot be read"):
            AccuracyPredictor.load(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(InputFileError, match="larger than"):
        AccuracyPredictor.load(path)


# --- torch files ---------------------------------------------------------------------------------------

TENSORS = OrderedDict(
    doubles=torch.randn(2, 3, dtype=torch.float64),
    floats=torch.randn(3, 4).t(),
    part=torch.arange(20.0)[5:15:2],
    halves=torch.randn(5).half(),
    brain=torch.randn(5).bfloat16(),
    longs=torch.arange(5),
    shorts=torch.arange(3, dtype=torch.int16),
    bytes=torch.arange(3, dtype=torch.uint8),
    bools=torch.tensor([True, False]),
    scalar=torch.tensor(3.0),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(torch.randn(2)),
)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reads_what_torch_writes(tmp_path: Path, legacy: bool, wrapped: bool) -> None:
    content = {"state_dict": TENSORS, "epoch": 3, "lr": [0.1], "name": None} if wrapped else TENSORS
    arrays = read_state_dict(save(content, tmp_path / "t.pth", legacy=legacy))
    assert list(arrays) == list(TENSORS)
    for name, tensor in TENSORS.items():
        expected = tensor.detach().float().numpy() if name == "brain" else tensor.detach().numpy()
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


class Harmful:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_executed(tmp_path: Path, legacy: bool) -> None:
    trace = tmp_path / "executed"
    path = save({"0.weight": Harmful(trace)}, tmp_path / "p.pth", legacy=legacy)
    with pytest.raises(InputFileError, match="no state_dict needs"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(InputFileError):
        read_state_dict(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harmful(trace)))
    assert trace.exists(), "the harm was none, and the test shows nothing"


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    source, path = save(TENSORS, tmp_path / "t.pth"), tmp_path / "bomb.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(50 << 20) if "/data/0" in name else old.read(name))
    with pytest.raises(InputFileError, match="compressed"):
        read_state_dict(path)


@pytest.mark.parametrize(("offset", "size", "stride"), [(0, 11, 1), (1, 10, 1), (0, 2, 10), (0, 1 << 30, 0)])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, offset: int, size: int, stride: int) -> None:
    class Beyond:
        def __reduce__(self) -> tuple[object, ...]:
            storage = torch.arange(10.0).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, offset, (size,), (stride,), False, OrderedDict())

    with pytest.raises(InputFileError, match="beyond its storage"):
        read_state_dict(save({"x": Beyond()}, tmp_path / "t.pth"))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return [save(TENSORS, folder / "t.pth", legacy=legacy).read_bytes() for legacy in (False, True)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "m.pth"


def damage(data: bytes, seed: int) -> bytes:
    """A few bytes changed, deleted, repeated or cut off, mostly in the part that is interpreted."""
    rng = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(damaged), rng.choice((100, 2000, len(damaged)))))
        match rng.randrange(5):
            case 0 | 1:
                damaged[at] = rng.randrange(256)
            case 2:
                damaged[at] ^= 1 << rng.randrange(8)
            case 3:
                del damaged[at : at + rng.randrange(1, 9)]
            case 4:
                damaged[at:at] = damaged[at : at + rng.randrange(1, 40)]
    return bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.2 else damaged)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 1), seed=st.integers(0, 2**32))
def test_a_damaged_file_gives_arrays_or_one_clear_line(
    originals: list[bytes], scratch: Path, which: int, seed: int
) -> None:
    scratch.write_bytes(damage(originals[which], seed))
    refused = None
    try:
        arrays = read_state_dict(scratch)
    except InputFileError as error:
        refused = str(error)
    if refused is None:
        assert sum(array.size for array in arrays.values()) < 10_000
    else:
        assert len(refused.encode().splitlines()) == 1


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(scratch: Path, data: bytes) -> None:
    for prefix in (b"", b"PK\x03\x04", b"\x80\x02", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)):
        scratch.write_bytes(prefix + data)
        with pytest.raises(InputFileError):
            read_state_dict(scratch)
