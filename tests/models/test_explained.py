"""The runtime's own profile against blocks: every kernel finds its block."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.onnx_nets import convolutions, saved

from ofa_profiler.models.explained import match_profile
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for


def test_names_decide_also_in_another_order() -> None:
    blocks = [[("a", "Conv"), ("b", "Relu")], [("c", "Conv")]]
    assert match_profile(blocks, [("c", "Conv"), ("a", "Conv"), ("b", "Relu")]) == [1, 0, 0]


def test_generated_names_are_matched_by_operator_and_order() -> None:
    blocks = [[("Reshape_token_4", "Reshape"), ("a", "Conv")], [("Reshape", "Reshape")]]
    kernels = [("Reshape_token_17", "Reshape"), ("a", "Conv"), ("Reshape_token_18", "Reshape")]
    assert match_profile(blocks, kernels) == [0, 0, 1]


def test_a_name_matched_with_a_suffix_before_is_not_used_twice() -> None:
    assert match_profile([[("a", "Conv")]], [("a_nchwc", "Conv"), ("a", "Conv")]) == [None, 0]


def test_blocked_layouts_of_this_machine_only() -> None:
    blocks = [[("conv0", "FusedConv")], [("conv1", "FusedConv")], [("end", "Softmax")]]
    kernels = [
        ("ReorderInput", "ReorderInput"),
        ("r0_nchwc", "Conv"),
        ("r1_nchwc", "Conv"),
        ("ReorderOutput_token_9", "ReorderOutput"),
        ("end", "Softmax"),
    ]
    assert match_profile(blocks, kernels) == [0, 0, 1, 1, 2]


def test_unknown_kernels_have_no_block() -> None:
    assert match_profile([[("a", "Conv")], [("b", "Relu")]], [("a", "Conv"), ("z", "Exp"), ("b", "Relu")]) == [
        0,
        None,
        1,
    ]
    assert match_profile([], [("z", "Exp")]) == [None]


@pytest.mark.parametrize("this_machine", [True, False])
def test_the_profile_of_onnxruntime_is_explained(tmp_path: Path, this_machine: bool) -> None:
    import json

    import onnxruntime

    model = open_model(saved(convolutions(6), tmp_path))
    feeds = feeds_for(model.inputs, {})
    blocks = model.blocks(feeds, this_machine=this_machine)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "trace")
    session = onnxruntime.InferenceSession(model.whole(feeds).data, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    found = [
        (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"])
        for event in events
        if event["name"].endswith("_kernel_time")
    ]
    ours = [[(kernel.name, kernel.kind) for kernel in block.kernels] for block in blocks]
    places = match_profile(ours, [(name, kind) for name, kind, _ in found])
    named = sum(event[2] for event, place in zip(found, places, strict=True) if place is not None)
    assert named >= 0.95 * sum(event[2] for event in found)
    convolutions_at = [place for place, (_, kind, _) in zip(places, found, strict=True) if kind.endswith("Conv")]
    assert len(convolutions_at) == 6
    assert convolutions_at == sorted(place for place in convolutions_at if place is not None)
