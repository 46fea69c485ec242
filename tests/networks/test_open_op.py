"""The op as an open description: it travels as JSON, and through the columns of a table."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space, space_names
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Conv, Gelu, LayerNorm, Linear, SelfAttention, SqueezeExcite
from ofa_profiler.networks.op import RESERVED, Op, register_block
from ofa_profiler.networks.tensors import DTYPES, Span, TensorSpec
from ofa_profiler.tables.op_columns import ATTRIBUTE_COLUMNS
from ofa_profiler.tables.row import Row

names = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=20).map(str.strip).filter(bool)
plain = names.filter(str.isprintable)
shapes = st.lists(st.integers(1, 4096), max_size=4).map(tuple)
ranges = st.none() | st.tuples(st.integers(-5, 5), st.integers(6, 1000))
finite = st.floats(allow_nan=False, allow_infinity=False)
spans = st.tuples(finite, finite).map(lambda pair: Span(*sorted(pair)))
floats = st.builds(TensorSpec, names, st.sampled_from(["float16", "float32", "float64"]), shapes, st.none(), spans)
specs = st.builds(TensorSpec, names, st.sampled_from(DTYPES), shapes, ranges, st.none()) | floats
tensors = st.lists(specs, min_size=1, max_size=3)
scalars = st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
attributes = st.dictionaries(
    names.filter(lambda name: name not in RESERVED) | st.sampled_from((*ATTRIBUTE_COLUMNS, "family")),
    scalars,
    max_size=6,
)
#: Also of kinds that the published tables have, with keys of somebody else.
kinds = st.sampled_from(("lstm", "conv", "pool", "mbconv", "classifier"))
ops = st.builds(Op, kinds, tensors.map(tuple), tensors.map(tuple), attributes, plain.map(lambda name: f"mine.{name}"))


@given(ops)
def test_json_and_back(op):
    assert Op.from_json(json.loads(json.dumps(op.to_json(), allow_nan=False))) == op


@pytest.mark.parametrize("name", space_names())
def test_ops_of_the_spaces_travel(name):
    for op in get_space(name).unique_ops():
        copy = Op.from_json(json.loads(json.dumps(op.to_json())))
        assert copy == op
        assert copy.graph == op.graph


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": ""}, "the key of an op must be a string"),
        ({"kind": 3}, "the kind of an op must be a string"),
        ({"inputs": []}, "the inputs of op 'a' must be a list of tensors"),
        ({"outputs": [{"name": "y", "dtype": "complex64", "shape": []}]}, "the dtype of tensor 'y' is 'complex64'"),
        ({"outputs": [{"name": "y", "dtype": "int8", "shape": [0]}]}, "the shape of tensor 'y' must be a list"),
        ({"inputs": [{"name": "y", "dtype": "int8", "shape": [1], "range": [3, 3]}]}, "the range of tensor 'y'"),
        ({"inputs": [7]}, "a tensor must be an object"),
        ({"attributes": {"a": [1]}}, "attribute 'a' must be a string, a number, true or false"),
        ({"attributes": None}, "the attributes of an op must be an object"),
    ],
)
def test_what_is_no_op_is_refused(change, words):
    tensor = {"name": "x", "dtype": "float32", "shape": [1]}
    data = {"key": "a", "kind": "k", "inputs": [tensor], "outputs": [tensor], "attributes": {}}
    assert Op.from_json(data).key == "a"
    with pytest.raises(ValueError, match=words):
        Op.from_json({**data, **change})


@settings(max_examples=40)
@given(st.lists(ops, min_size=1, max_size=5, unique_by=lambda op: op.key))
def test_a_table_of_any_ops_is_read_back(tmp_path_factory, listed):
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    rows = tuple(Row.from_op(op, batch=1, precision="fp32", samples_ms=[1.0, 2.0]) for op in listed)
    LatencyTable("t", rows, path=path).save(path)
    assert [row.to_op() for row in LatencyTable.load(path).rows] == listed


def test_columns_that_an_op_has_not_are_empty(tmp_path: Path):
    ids = TensorSpec("ids", "int64", (7,), (0, 100))
    op = Op("embedding", (ids,), (TensorSpec("output", "float32", (7, 16)),), {"stride": 2, "size": 100}, "embed")
    row = Row.from_op(op, batch=1, precision="fp32", samples_ms=[1.0])
    LatencyTable("t", (row,)).save(tmp_path / "t.csv")
    header, line = (text.split(",") for text in (tmp_path / "t.csv").read_text().splitlines())
    cells = dict(zip(header, line[: len(header)], strict=True))
    assert cells | {"kernel_size": "", "mid_channels": "", "stride": "2", "skip": "", "activation": ""} == cells
    assert (cells["kind"], cells["input_shape"], cells["output_shape"]) == ("embedding", "7", "7x16")
    (again,) = LatencyTable.load(tmp_path / "t.csv").rows
    assert again.to_op() == op


@pytest.mark.parametrize(
    ("cell", "words"), [("{", "is not JSON"), ("[]", "is not a JSON object"), ('{"inputs":1}', "")]
)
def test_wrong_attributes_in_a_table_are_refused(tmp_path: Path, cell, words):
    op = Op("k", (TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1,)),), {}, "a")
    path = tmp_path / "t.csv"
    LatencyTable("t", (Row.from_op(op, batch=1, precision="fp32", samples_ms=[1.0]),)).save(path)
    text = path.read_text().splitlines()
    start = text[1].index('"{')
    path.write_text("\n".join([text[0], text[1][:start] + '"' + cell.replace('"', '""') + '"']) + "\n")
    with pytest.raises(InputFileError, match=rf"row 2: column attributes: .*{words}"):
        LatencyTable.load(path)


def test_a_published_block_keeps_further_attributes(tmp_path: Path):
    block = block_op("pool", (4, 4, 8), (1, 1, 8))
    op = Op(block.kind, block.inputs, block.outputs, {**block.attributes, "note": "mine"}, block.key)
    LatencyTable("t", (Row.from_op(op, batch=1, precision="fp32", samples_ms=[1.0]),)).save(tmp_path / "t.csv")
    assert LatencyTable.load(tmp_path / "t.csv").rows[0].to_op() == op


def test_an_op_cannot_be_changed():
    op = block_op("pool", (4, 4, 8), (1, 1, 8))
    with pytest.raises(TypeError):
        op.attributes["se"] = True
    assert copy.deepcopy(op) is op


@pytest.mark.parametrize("key", ["", " a", "a\nb"])
def test_keys_are_plain_texts(key):
    tensors = (TensorSpec("x", "float32", (1,)),)
    with pytest.raises(ValueError, match="is not a plain text on one line"):
        Op("k", tensors, tensors, {}, key)
    with pytest.raises(ValueError, match="at least one input"):
        Op("k", (), tensors, {}, "a")
    with pytest.raises(ValueError, match="must not be named 'inputs'"):
        Op("k", tensors, tensors, {"inputs": 1}, "a")


def test_layers_that_do_not_fit_the_op_are_refused():
    small = TensorSpec("input", "float32", (4, 8))

    @register_block("a-test-of-shapes")
    def build(op: Op) -> Graph:
        return Graph.chain((Gelu("gelu"),), op.input_shape)

    assert Op("a-test-of-shapes", (small,), (small,), {}, "fits").graph.outputs == ("gelu",)
    with pytest.raises(UsageError, match="its layers have inputs and outputs"):
        _ = Op("a-test-of-shapes", (small,), (TensorSpec("output", "float32", (9,)),), {}, "wrong").graph
    for layer in (
        Conv("c", 7, 8),
        Linear("l", 7, 8),
        LayerNorm("n", 7),
        SelfAttention("a", 7, 1),
        SqueezeExcite("s", 7, 1),
    ):
        with pytest.raises(UsageError, match=f"layer {layer.name} takes 7"):
            layer.output_shape((4, 4, 8) if isinstance(layer, Conv | SqueezeExcite) else (4, 8))


def test_a_kind_is_registered_once():
    with pytest.raises(UsageError, match="kind of op 'mbconv' is already registered"):
        register_block("mbconv")(lambda op: op.graph)
