"""The `.pth` files of torch, read without torch: what comes back, and files that mean harm."""

from __future__ import annotations

import copyreg
import io
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofa_profiler.errors import InputFileError
from ofa_search.artifacts import restricted_pickle
from ofa_search.artifacts.torch_file import read_state_dict

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


def save(content: object, path: Path, *, legacy: bool = False, protocol: int = 2) -> Path:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return path


# --- what torch writes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_what_torch_writes(tmp_path: Path, legacy: bool, wrapped: bool, protocol: int) -> None:
    content = {"state_dict": TENSORS, "epoch": 3, "lr": [0.1], "name": None} if wrapped else TENSORS
    arrays = read_state_dict(save(content, tmp_path / "t.pth", legacy=legacy, protocol=protocol))
    assert list(arrays) == list(TENSORS)
    for name, tensor in TENSORS.items():
        expected = tensor.detach().float().numpy() if name == "brain" else tensor.detach().numpy()
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_a_network_with_its_optimizer(tmp_path: Path, legacy: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    content = {"epoch": 1, "state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    path = save(content | {"scheduler": scheduler.state_dict()}, tmp_path / "t.pth", legacy=legacy)
    arrays = read_state_dict(path)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_arrays_are_read_only_views_of_their_storages(tmp_path: Path, legacy: bool) -> None:
    values = torch.arange(1000.0)
    content = {"a": values, "b": values.view(10, 100)[2:], "c": values.bfloat16()}
    arrays = read_state_dict(save(content, tmp_path / "t.pth", legacy=legacy))
    assert np.shares_memory(arrays["a"], arrays["b"])
    assert not any(array.flags.writeable for array in arrays.values())


# --- files that mean harm ----------------------------------------------------------------------------------


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


# --- pickles made by hand ------------------------------------------------------------------------------------
#
# Pieces of them: what they leave on the stack is in their names.

START, STOP = b"\x80\x02", b"."
ORDERED_DICT = b"ccollections\nOrderedDict\n"
EMPTY_ORDERED_DICT = ORDERED_DICT + b")R"
REBUILD_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
REBUILD_PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(numel: int = 4, key: str = "0", kind: str = "FloatStorage") -> bytes:
    identity = [text("storage"), b"ctorch\n%s\n" % kind.encode(), text(key), text("cpu"), number(numel)]
    return b"(" + b"".join(identity) + b"tQ"


def tensor(shape: bytes = b"K\x04\x85", strides: bytes = b"K\x01\x85", of: bytes | None = None) -> bytes:
    arguments = [of or storage(), number(0), shape, strides, b"\x89", EMPTY_ORDERED_DICT]
    return REBUILD_TENSOR + b"(" + b"".join(arguments) + b"tR"


def state_dict(value: bytes, name: bytes = text("x")) -> bytes:
    return START + b"}" + name + value + b"s" + STOP


def archive(path: Path, content: bytes, members: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        for name, data in ({"0": bytes(16)} if members is None else members).items():
            file.writestr(f"archive/data/{name}", data)
    return path


def legacy(path: Path, content: bytes, keys: tuple[str, ...] = ("0",)) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    pickles = [*(pickle.dumps(value, 2) for value in head), content, pickle.dumps(list(keys), 2)]
    path.write_bytes(b"".join(pickles) + (struct.pack("<q", 4) + bytes(16)) * len(keys))
    return path


def test_the_pieces_make_a_file_that_can_be_read(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    parameter = REBUILD_PARAMETER + tensor() + b"\x88" + EMPTY_ORDERED_DICT + b"\x87R"
    for content in (state_dict(tensor()), state_dict(parameter)):
        for path in (archive(tmp_path / "z.pth", content), legacy(tmp_path / "l.pth", content)):
            assert read_state_dict(path)["x"].tolist() == [0.0] * 4


CODE = 0x7F  # of an extension

HOSTILE = {
    # Names.
    "eval": (b"cbuiltins\neval\n" + text("1") + b"\x85R", "builtins.eval"),
    "a name from the stack": (text("os") + text("system") + b"\x93", "os.system"),
    "what a name holds": (b"ctorch._utils\n_rebuild_parameter.__globals__\n", "__globals__"),
    "a method of a name": (b"ccollections\nOrderedDict.fromkeys\n", "fromkeys"),
    "a Python 2 name": (b"c__builtin__\neval\n", "__builtin__.eval"),
    "a name that is not a text": (b"K\x01K\x02\x93", "damaged"),
    "names of ours": (b"cofa_search.artifacts.torch_file\nread_state_dict\n", "no state_dict needs"),
    # Opcodes that call, look up, or make objects by other ways than `find_class` and REDUCE.
    **{f"EXT{n}": (op + struct.pack(f"<{size}", CODE), "opcode") for n, op, size in
       ((1, b"\x82", "B"), (2, b"\x83", "H"), (4, b"\x84", "i"))},
    "INST": (b"(icollections\nOrderedDict\n", "opcode"),
    "OBJ": (b"(" + ORDERED_DICT + b"o", "opcode"),
    "NEWOBJ": (ORDERED_DICT + b")\x81", "opcode"),
    "NEWOBJ_EX": (ORDERED_DICT + b")}\x92", "opcode"),
    "PERSID": (b"Pstorage\n", "opcode"),
    "INT": (b"I1\n", "opcode"),
    "a set": (b"\x8f", "builtins.set"),
    "a set of tuples": (b"\x8f(" + b")" + b"\x85" * 500_000 + b"\x90", "builtins.set"),
    "a frozen set": (b"(" + b")" + b"\x85" * 500_000 + b"\x91", "builtins.frozenset"),
    "an object of a foreign class": (b"cos\nPopen\n)\x81}" + text("a") + b")sb", "os.Popen"),
    "a foreign dict": (b"ccollections\nCounter\n)R(" + b")" + b"\x85" * 500_000 + b"K\x01u", "collections.Counter"),
    "a foreign list": (b"ccollections\ndeque\n)R(K\x01K\x02eK\x03a", "collections.deque"),
    "a storage of a foreign type": (
        tensor(of=b"(" + text("storage") + b"ctorch\nQInt8Storage\n" + text("0") + text("cpu") + b"K\x04tQ"),
        "torch.QInt8Storage|does not fit",
    ),
    # Calls.
    "a call of a text": (text("eval") + b")R", "damaged"),
    "a call of a storage": (storage() + b")R", "damaged"),
    "a call of the type of a storage": (b"ctorch\nFloatStorage\nK\x01\x85R", "damaged"),
    "an OrderedDict of something": (ORDERED_DICT + b"]\x85R", "damaged"),
    "a tensor of nothing": (REBUILD_TENSOR + b")R", "damaged"),
    "a tensor of a text": (REBUILD_TENSOR + b"(" + text("x") + b"K\x00))\x89NtR", "malformed"),
    "a tensor of nine dimensions": (tensor(b"(" + b"K\x01" * 9 + b"t", b"(" + b"K\x01" * 9 + b"t"), "malformed"),
    "a tensor of a negative stride": (tensor(strides=number(-1) + b"\x85"), "malformed"),
    "a tensor of a fraction": (tensor(strides=b"G" + struct.pack(">d", 1.0) + b"\x85"), "malformed"),
    "a parameter of a number": (REBUILD_PARAMETER + b"K\x01\x88N\x87R", "malformed"),
    # Attributes.
    "attributes of a function": (REBUILD_PARAMETER + b"}" + text("__defaults__") + b")sb", "sets attributes"),
    "slots of a function": (REBUILD_PARAMETER + b"N}" + text("__defaults__") + b")s\x86b", "sets attributes"),
    "attributes of a tensor": (tensor() + b"}" + text("shape") + b"K\x01sb", "sets attributes"),
    "attributes of a list": (b"]}b", "sets attributes"),
    # Storages.
    "a storage of a negative size": (storage(-1), "cannot exist"),
    "a storage of a huge size": (storage(1 << 40), "cannot exist"),
    "a storage larger than the file": (tensor(of=storage(1 << 39)), "larger than the file|truncated"),
    "a storage of another size": (tensor(of=storage(5)), "truncated"),
    "a storage smaller than its member": (tensor(of=storage(3)), "more than 12|truncated"),
    "a storage with two descriptions": (storage() + storage(5) + b"\x86", "two ways"),
    "a storage of no type": (b"(" + text("storage") + text("Float") + text("0") + text("cpu") + b"K\x04tQ", "cannot"),
    "a module as an identity": (text("module") + b"Q", "not a storage"),
    "a missing storage": (tensor(of=storage(key="7")), "lacks|does not fit"),
    # An empty tensor that numpy cannot make.
    "an empty tensor of huge sizes": (
        tensor(b"K\x00" + number(1 << 39) + number(1 << 39) + b"\x87", b"K\x01K\x01K\x01\x87"),
        "beyond its storage",
    ),
}  # fmt: skip


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has an extension code of its own, and has used it: it needs no name any more."""
    copyreg.add_extension("builtins", "print", CODE)
    assert pickle.loads(b"\x80\x02\x82" + bytes([CODE]) + b".") is print
    yield
    copyreg.remove_extension("builtins", "print", CODE)
    copyreg.clear_extension_cache()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused(tmp_path: Path, name: str) -> None:
    value, words = HOSTILE[name]
    for write in (archive, legacy):
        with pytest.raises(InputFileError, match=words) as refused:
            read_state_dict(write(tmp_path / "h.pth", state_dict(value)))
        assert len(str(refused.value).splitlines()) == 1
    assert restricted_pickle._rebuild_parameter.__defaults__ is None


@pytest.mark.parametrize(
    "key",
    [
        # The hash of such a tuple crashes the process.
        pytest.param(b")" + b"\x85" * 500_000, marks=pytest.mark.slow),
        b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(100)),  # takes 2^100 steps
        number((1 << 61) - 1),  # has the hash of 0; many of them make a dict slow
        b"\x88",
        b"N",
        ORDERED_DICT,
        b"]",
    ],
    ids=["deep tuple", "wide tuple", "large number", "bool", "None", "function", "list"],
)
def test_a_key_that_is_not_a_text_is_refused(tmp_path: Path, key: bytes) -> None:
    for write in (archive, legacy):
        for content in (state_dict(b"N", key), START + EMPTY_ORDERED_DICT + b"(" + key + b"Nu" + STOP):
            with pytest.raises(InputFileError, match="has a key that"):
                read_state_dict(write(tmp_path / "k.pth", content))


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        b")" + b"\x85" * 1_000_000,
        b"]" * 1_000_000 + b"a" * 999_999,
        b"}" + (text("x") + b"}") * 300_000 + b"s" * 300_000,
    ],
    ids=["tuples", "lists", "dicts"],
)
def test_deeply_nested_objects_are_refused(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(InputFileError, match="is not a tensor"):
        read_state_dict(archive(tmp_path / "d.pth", state_dict(value)))


def test_a_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content = START + b"}q\x00" + text("state_dict") + b"h\x00s" + STOP
    with pytest.raises(InputFileError, match="is not a tensor"):
        read_state_dict(archive(tmp_path / "c.pth", content))


def test_a_pickle_has_a_largest_size(tmp_path: Path) -> None:
    content = START + text("x" * (5 << 20)) + STOP
    with pytest.raises(InputFileError, match="more than 4194304"):
        read_state_dict(archive(tmp_path / "p.pth", content))
    with pytest.raises(InputFileError, match="damaged"):
        read_state_dict(legacy(tmp_path / "p.pth", content))


@pytest.mark.parametrize(("numel", "words"), [(4, "more than 16"), (1 << 18, "larger than the file")])
def test_members_of_a_zip_file_cannot_share_bytes(tmp_path: Path, numel: int, words: str) -> None:
    """A thousand members, all of them the same bytes of the file."""
    data = bytes(1 << 20)
    tensors = b"".join(text(f"x{i}") + tensor(of=storage(numel, str(i))) + b"s" for i in range(1000))
    path = archive(tmp_path / "o.pth", START + b"}" + tensors + STOP, {"0": data})
    with zipfile.ZipFile(path, "a") as file:
        (first,) = (info for info in file.infolist() if info.filename.endswith("data/0"))
        for i in range(1, 1000):
            info = zipfile.ZipInfo(f"archive/data/{i}")
            info.header_offset, info.file_size, info.compress_size, info.CRC = (
                first.header_offset, first.file_size, first.compress_size, first.CRC,
            )  # fmt: skip
            file.filelist.append(info)
            file.NameToInfo[info.filename] = info
        file._didModify = True
    with pytest.raises(InputFileError, match=words):
        read_state_dict(path)


MEMORY = """
import sys
from pathlib import Path
from ofa_profiler.errors import InputFileError
from ofa_search.artifacts.torch_file import read_state_dict
def peak_mib():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
before = peak_mib()
try:
    read_state_dict(sys.argv[1])
except InputFileError as error:
    print(error)
print(peak_mib() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak of a process")
@pytest.mark.parametrize(
    ("content", "most_mib"),
    [
        (START + b"}" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(10)) + STOP, 5),
        (START + b"(" * 4_000_000 + STOP, 450),
        (START + b"}" * 4_000_000 + STOP, 450),
        (START + b"(" + b"]" * 4_000_000 + b"t" + STOP, 450),
    ],
    ids=["index of the memo", "marks", "dicts", "lists"],
)
def test_memory_is_bounded_by_the_largest_pickle(tmp_path: Path, content: bytes, most_mib: int) -> None:
    path = archive(tmp_path / "m.pth", content)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    *words, mib = done.stdout.splitlines()
    assert len(words) == 1
    assert "m.pth: not a torch file" in words[0]
    assert float(mib) < most_mib


# --- files that are damaged -----------------------------------------------------------------------------------


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


def check_read_or_refused(path: Path) -> None:
    refused = None
    try:
        arrays = read_state_dict(path)
    except InputFileError as error:
        refused = str(error)
    if refused is None:
        assert sum(array.size for array in arrays.values()) < 10_000
    else:
        assert len(refused.encode().splitlines()) == 1


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 1), seed=st.integers(0, 2**32))
def test_a_damaged_file_gives_arrays_or_one_clear_line(
    originals: list[bytes], scratch: Path, which: int, seed: int
) -> None:
    scratch.write_bytes(damage(originals[which], seed))
    check_read_or_refused(scratch)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_damaged_pickle_in_a_whole_archive_gives_arrays_or_one_clear_line(
    originals: list[bytes], scratch: Path, seed: int
) -> None:
    """In the test above, the checksum of the archive finds nearly all damage."""
    with zipfile.ZipFile(io.BytesIO(originals[0])) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(scratch, "w") as file:
        for name, data in members.items():
            file.writestr(name, damage(data, seed) if name.endswith("data.pkl") else data)
    check_read_or_refused(scratch)


PIECES = st.sampled_from(
    [
        *(b"}", b"]", b")", b"N", b"\x88", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u"),
        *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"\x94", b"R", b"b", b"Q", b"\x93"),
        *(b"\x82\x7f", b"K\x04", b"0", b"2", b"\x81", b"\x8f", b"\x90", b"\x91", b"C\x02ab"),
        *(number(1 << 39), number(-1), text("x"), text("state_dict"), text("torch._utils"), text("FloatStorage")),
        *(ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, EMPTY_ORDERED_DICT, b"cbuiltins\nprint\n"),
        *(storage(), storage(3), tensor(), text("y") + tensor() + b"s"),
    ]
)  # fmt: skip


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(PIECES, max_size=30), is_zip=st.booleans())
def test_any_sequence_of_opcodes_gives_arrays_or_one_clear_line(
    scratch: Path, pieces: list[bytes], is_zip: bool
) -> None:
    (archive if is_zip else legacy)(scratch, START + b"}" + b"".join(pieces) + STOP)
    check_read_or_refused(scratch)
    assert restricted_pickle._rebuild_parameter.__defaults__ is None
    assert not vars(restricted_pickle._rebuild_parameter)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(scratch: Path, data: bytes) -> None:
    for prefix in (b"", b"PK\x03\x04", b"\x80\x02", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)):
        scratch.write_bytes(prefix + data)
        with pytest.raises(InputFileError):
            read_state_dict(scratch)
