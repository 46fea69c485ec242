"""Files of cut networks without exporting them."""

from __future__ import annotations

import numpy as np
import pytest
from support.cut_nets import ResidualNet, cut_parameters, residual_dependencies

from ofa_search.pruning.groups import Group
from ofa_search.pruning.latency.exporting import distinct_counts
from ofa_search.pruning.latency.onnx_files import OnnxFiles
from ofa_search.pruning.latency.rules import Example, NotLearned, learned_rules
from ofa_search.pruning.latency.sizes import numbers_of, separated, structure_of


@pytest.mark.slow
@pytest.mark.parametrize("flat", [0, 16])
def test_sizes_are_those_of_an_export(flat: int) -> None:
    net = ResidualNet((16, 24), depth=1, flat=flat).eval()
    dependencies = residual_dependencies(net)
    exporter = OnnxFiles(net, dependencies, ["1x3x8x8"], cut_parameters)
    counts = {"stem.0": 8, "blocks.0.conv1": 16, "blocks.1.conv1": 3, "blocks.1.shortcut.0": 16}
    made, exported = exporter.model(counts), exporter.exported(counts)
    assert exporter.slow_because == ""
    assert structure_of(made) == structure_of(exported)
    assert numbers_of(made) == numbers_of(exported)
    assert numbers_of(exporter.model({})) == numbers_of(exporter.exported({}))


@pytest.mark.slow
def test_the_file_runs() -> None:
    import onnxruntime

    net = ResidualNet((16, 24), depth=1, flat=16).eval()
    exporter = OnnxFiles(net, residual_dependencies(net), ["1x3x8x8"], cut_parameters)
    data = exporter.model({"blocks.1.shortcut.0": 8}).SerializeToString()
    session = onnxruntime.InferenceSession(data)
    (out,) = session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    assert out.shape == (1, 10)
    assert np.isfinite(out).all()
    assert data == exporter.model({"blocks.1.shortcut.0": 8}).SerializeToString()


def test_exports_differ_in_no_names_that_torch_counted() -> None:
    """torch numbers values, and drops some that differ between cut networks."""
    from onnx import TensorProto, helper

    def exported(first: int) -> object:
        names = [f"val_{first + i}" for i in range(2)]
        nodes = [
            helper.make_node("Split", ["x"], names, name=f"node_Split_{first}", num_outputs=2),
            helper.make_node("Add", names, [f"val_{first + 9}"], name=f"node_Add_{first + 9}"),
            helper.make_node("Relu", [f"val_{first + 9}"], ["y"], name=f"node_Relu_{first + 9}"),
        ]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
        return separated(helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:])))

    one, other = exported(7), exported(8)
    assert one == other
    assert [node.name for node in one.graph.node] == ["Split_0", "Add_1", "Relu_2"]  # type: ignore[attr-defined]
    assert structure_of(one)[0][1] == ("Add", ("Split_0_0", "Split_0_1"), ("Add_1_0",))  # type: ignore[arg-type, index]


def test_groups_of_few_units_are_told_apart() -> None:
    """With the same units lost in all examples, one group would be taken for another."""
    groups = [Group(f"heads{i}", "heads", 2 + i % 2, 8, (), ()) for i in range(24)]
    groups.append(Group("one", "heads", 1, 8, (), ()))
    drawn = distinct_counts(groups)
    lost = [np.array([group.n_units - counts[group.name] for counts in drawn], dtype=float) for group in groups[:24]]
    directions = {tuple(np.round(each / np.linalg.norm(each), 6)) for each in lost}
    assert len(directions) == 24
    assert all(counts["one"] == 1 for counts in drawn)


def test_shapes_of_concatenated_maps_are_learned() -> None:
    """As long as the weights of the layer after them, or a multiple where a map is flattened."""
    full = {"a": 16, "b": 8, "c": 24}
    drawn = [({"a": 9, "b": 7, "c": 20}, 9 * (9 + 7)), ({"a": 12, "b": 4, "c": 13}, 9 * (12 + 4))]
    seen = [Example(counts, {"flat": flat, "same": 5}) for counts, flat in drawn]
    joined = [{"b": 1, "c": 1}, {"a": 1, "b": 1}]
    numbers = {"flat": 9 * 24, "same": 5}
    assert learned_rules(numbers, full, seen, lambda _spot: (), joined) == {"flat": {"a": 9, "b": 9}}
    with pytest.raises(NotLearned, match="no group explains that 216 becomes 144"):
        learned_rules(numbers, full, seen, lambda _spot: (), joined[:1])
