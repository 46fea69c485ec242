"""The notations of the OFA authors: settings (`ks, e, d, r`) and `net.config`, read and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reference import PUBLISHED, choice, do_without_torchvision, networks, supernet
from support.spaces import SmallSpace, registered

from ofa_profiler import Architecture, get_space, space_names
from ofa_profiler.errors import InputFileError, UsageError

#: Of ofa-mbv3-w1.0: all blocks, the inactive ones included.
SETTINGS = {
    "ks": [3, 5, 7, 3, 7, 7, 5, 5, 3, 3, 3, 3, 5, 5, 5, 7, 3, 7, 5, 3],
    "e": [3, 4, 6, 3, 6, 6, 4, 4, 3, 3, 3, 3, 4, 4, 4, 6, 3, 6, 4, 3],
    "d": [2, 3, 4, 2, 3],
    "r": 176,
}
W10 = {**SETTINGS, "space": "ofa-mbv3-w1.0"}
SAMPLES = st.builds(
    lambda name, seed: get_space(name).sample(np.random.default_rng(seed)),
    st.sampled_from(space_names()),
    st.integers(0, 2**32 - 1),
)


def in_json(data: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return copy


# --- written and read back -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SAMPLES)
def test_settings_round_trip(architecture: Architecture) -> None:
    assert Architecture.from_json(in_json(architecture.to_ofa())) == architecture


@settings(max_examples=60, deadline=None)
@given(SAMPLES)
def test_a_net_config_gives_the_same_layers(architecture: Architecture) -> None:
    read = Architecture.from_json(in_json(architecture.to_net_config()))
    space = get_space(architecture.space)
    assert (read.space, read.resolution) == (architecture.space, architecture.resolution)
    assert space.layout(read) == space.layout(architecture)
    # Two widths of the stem of ResNet50 give 24 channels, which its net.config cannot tell apart.
    assert read == architecture or space.name == "ofa-resnet50"


@pytest.mark.parametrize("name", space_names())
def test_the_largest_and_the_smallest_network(name: str) -> None:
    for architecture in (get_space(name).largest, get_space(name).smallest):
        assert Architecture.from_json(architecture.to_ofa()) == architecture


def test_settings_are_what_the_authors_write() -> None:
    found = Architecture.from_json(W10)
    assert [stage.depth for stage in found.stages] == SETTINGS["d"]
    assert found.stages[0].kernel_sizes == (3, 5)
    assert found.stages[2].expand_ratios == (3, 3, 3, 3)
    assert found.to_ofa()["d"] == SETTINGS["d"]
    assert len(found.to_ofa()["ks"]) == 20


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_authors_code_understands_both(name: str) -> None:
    networks()
    do_without_torchvision()
    from ofa.imagenet_classification.networks import get_net_by_name

    space, network = get_space(name), supernet(name, seed=0)
    for seed in range(3):
        architecture = space.sample(np.random.default_rng(seed))
        written = architecture.to_ofa()
        assert {key: written[key] for key in written.keys() & {"ks", "e", "d", "w"}} == {
            key: values for key, values in choice(architecture).items() if key in written
        }
        network.set_active_subnet(**written)
        theirs = network.get_active_subnet()
        if name != "ofa-resnet50":  # their own config of it holds a module, which is not JSON
            theirs_config = {**in_json(network.get_active_net_config()), "image_size": architecture.resolution}
            assert Architecture.from_json(theirs_config) == architecture
        built = (
            get_net_by_name(written_config["name"]).build_from_config(written_config)
            if (written_config := in_json(architecture.to_net_config()))
            else None
        )
        shapes = [{n: p.shape for n, p in net.state_dict().items()} for net in (theirs, built)]
        assert shapes[0] == shapes[1]


# --- variants that other people write ----------------------------------------------------------------------


def compact(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists of the active blocks only."""
    active = [4 * stage + block for stage, depth in enumerate(settings["d"]) for block in range(depth)]
    return {**settings, **{name: [settings[name][i] for i in active] for name in ("ks", "e")}}


def with_inactive(value: Any) -> dict[str, Any]:
    active = [block < depth for depth in SETTINGS["d"] for block in range(4)]
    filled = {n: [v if on else value for v, on in zip(SETTINGS[n], active, strict=True)] for n in ("ks", "e")}
    return {**W10, **filled}


@pytest.mark.parametrize(
    "variant",
    [
        {**W10, "wid": None},
        {**W10, "r": [176]},
        {**SETTINGS, "width": 1.0},
        {**SETTINGS, "w": 1.0},
        {**SETTINGS, "net": "ofa_mbv3_d234_e346_k357_w1.0"},
        {**SETTINGS, "space": "ofa_mbv3_d234_e346_k357_w1.0"},
        {**{k: v for k, v in W10.items() if k != "r"}, "image_size": 176},
        {**W10, "e": [float(e) for e in SETTINGS["e"]]},
        with_inactive(None),
        with_inactive(0),
        compact(W10),
    ],
)
def test_variants_are_read(variant: dict[str, Any]) -> None:
    assert Architecture.from_json(variant) == Architecture.from_json(W10)


def test_one_number_stands_for_all_blocks() -> None:
    found = Architecture.from_json({"space": "ofa-mbv3-w1.2", "ks": 7, "e": 6, "d": 4, "r": 224})
    assert found == get_space("ofa-mbv3-w1.2").largest


def test_the_last_stage_of_proxyless_has_no_choice() -> None:
    largest = get_space("ofa-proxyless-w1.3").largest
    written = largest.to_ofa()
    for depths in ([4] * 5, [4] * 6, [4, 4, 4, 4, 4, 1]):
        assert Architecture.from_json({**written, "d": depths}) == largest


def test_the_space_follows_from_the_settings_where_they_fit_one() -> None:
    for name in ("ofa-proxyless-w1.3", "ofa-resnet50", "cifar-mbv3"):
        written = get_space(name).largest.to_ofa()
        del written["space"]
        assert Architecture.from_json(written).space == name
    with pytest.raises(UsageError, match=r'fit ofa-mbv3-w1\.0 and ofa-mbv3-w1\.2: add "space": "ofa-mbv3-w1\.0"'):
        Architecture.from_json(SETTINGS)
    assert Architecture.from_json(SETTINGS, "ofa-mbv3-w1.2").space == "ofa-mbv3-w1.2"


def test_older_names_of_blocks_are_read() -> None:
    architecture = Architecture.from_json(W10)
    config = in_json(architecture.to_net_config())
    for block in config["blocks"]:
        block["name"], block["mobile_inverted_conv"] = "MobileInvertedResidualBlock", block.pop("conv")
        block["mobile_inverted_conv"].update(
            name="MBInvertedConvLayer", kernel_size=2 * [block["mobile_inverted_conv"]["kernel_size"]]
        )
    config["classifier"]["out_features"] = 10
    assert Architecture.from_json(config) == architecture


def test_a_space_of_a_user_has_the_form_too() -> None:
    space = SmallSpace(name="mine", resolutions=(4, 8), valid_resolutions=(2, 4, 8), stem=True, width_mults=(0.5, 1))
    with registered(space):
        for seed in range(20):
            architecture = space.sample(np.random.default_rng(seed))
            assert Architecture.from_json(architecture.to_ofa()) == architecture


# --- what is wrong is named ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ks": [9] * 20}, "ks[0] is 9, not one of 3, 5, 7"),
        ({"ks": [3] * 19 + [None], "d": [4] * 5}, "ks[19] is None, not one of 3, 5, 7"),
        ({"ks": [True] * 20}, "ks[0] is True"),
        ({"ks": "3"}, "'ks' is '3'; it must be a list of 20 numbers"),
        ({"e": [3] * 19}, "'e' has 19 numbers, not 20, or 14 for the active blocks"),
        ({"d": [2, 2, 5, 2, 2]}, "d[2] is 5, not one of 2, 3, 4"),
        ({"d": [2, 2, 2]}, "'d' has 3 numbers, not 5"),
        ({"d": [[2]] * 5}, "d[0] is [2]"),
        ({"r": [160, 192]}, "'r' is [160, 192], not one image size in pixels"),
        ({"r": 100}, "has no resolution 100"),
        ({"r": None}, 'the image size is missing: add "r", for example 224'),
        ({"space": "mbv9"}, "unknown search space 'mbv9'"),
        ({"space": "ofa-resnet50"}, "'w' is missing; it must be a list of 6 numbers"),
        ({"space": "ofa-proxyless-w1.3"}, "'ks' has 20 numbers, not 21"),
    ],
)
def test_wrong_settings_name_the_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Architecture.from_json({**W10, **change})
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_wrong_settings_of_resnet_are_compared_with_resnet() -> None:
    written = get_space("ofa-resnet50").largest.to_ofa()
    del written["space"]
    with pytest.raises(UsageError, match=r"w\[1\] is 0\.8, not one of 0, 1, 2 \(ofa-resnet50\)"):
        Architecture.from_json({**written, "w": [2, 0.8, 2, 2, 2, 2]})
    with pytest.raises(UsageError, match=r"d\[0\] is 1, not one of 0, 2 \(ofa-resnet50\)"):
        Architecture.from_json({**written, "d": [1, 2, 2, 2, 2]})


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    config = in_json(Architecture.from_json(W10).to_net_config())
    change(config)
    return config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(lambda c: c["blocks"][3]["conv"].update(kernel_size=9)), "blocks[3].conv.kernel_size is 9, not 3 or"),
        (changed(lambda c: c["blocks"][3]["conv"].update(mid_channels=77)), "blocks[3].conv.mid_channels is 77"),
        (changed(lambda c: c["blocks"][2]["conv"].pop("stride")), "blocks[2].conv.stride is missing"),
        (changed(lambda c: c["blocks"][3].update(conv=None)), "blocks[3].conv must be a layer"),
        (changed(lambda c: c["blocks"].extend(5 * c["blocks"][-1:])), "as in ofa-mbv3-w1.0"),
        (changed(lambda c: c.update(blocks=3)), "'blocks' must be a list of layers"),
        (changed(lambda c: c.pop("first_conv")), "first_conv must be a layer"),
        (changed(lambda c: c.pop("final_expand_layer")), "feature_mix_layer.in_channels is 960, not 160"),
        (changed(lambda c: c["first_conv"].update(out_channels=12)), "first_conv.out_channels is 12, not 16"),
        (changed(lambda c: c.update(name="OFAMobileNetV3")), "is a supernet; give the net.config of a subnet"),
        (changed(lambda c: c.update(name="VGG")), "'name' is 'VGG', not a network of the OFA authors"),
        (changed(lambda c: c.pop("image_size")), "the image size is missing: put the run.config beside it"),
        (changed(lambda c: c.update(image_size=100)), "has no resolution 100"),
    ],
)
def test_a_wrong_net_config_names_the_field(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        Architecture.from_json(config)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.sampled_from(["", "conv", "ofa-mbv3-w1.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["conv", "name"]), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_anything_gives_an_architecture_or_one_clear_line(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([W10, get_space("ofa-resnet50").smallest.to_ofa(), changed(lambda _: None)]))
    field = data.draw(st.sampled_from(sorted(document)))
    refused = None
    try:
        found = Architecture.from_json(
            {**document, field: data.draw(JSON)}, data.draw(st.none() | st.just("cifar-mbv3"))
        )
    except UsageError as error:
        refused = str(error)
    if refused is not None:
        assert len(refused.splitlines()) == 1
    else:
        get_space(found.space).validate(found)


# --- files ---------------------------------------------------------------------------------------------------


def test_files_of_all_notations(tmp_path: Path) -> None:
    architecture = Architecture.from_json(W10)
    path = tmp_path / "one.json"
    written = architecture.to_json()
    for text in (
        json.dumps(written),
        "\ufeff" + json.dumps(W10),
        str({**W10, "wid": None}),
        str((0.81, W10, 24.7)),
        json.dumps({"results": [{"architecture": written}]}),
        json.dumps({"architecture": W10, "top1": 0.8}),
        json.dumps(architecture.to_net_config()),
    ):
        path.write_text(text, encoding="utf-8")
        assert Architecture.load(path) == architecture


def test_the_resolution_of_a_net_config_is_beside_it(tmp_path: Path) -> None:
    architecture = Architecture.from_json(W10)
    config = architecture.to_net_config()
    del config["image_size"]
    for name in ("net.config", "phone.net.config"):
        (tmp_path / name).write_text(json.dumps(config))
    with pytest.raises(InputFileError, match=r"net\.config: architecture: the image size is missing"):
        Architecture.load(tmp_path)
    (tmp_path / "run.config").write_text(json.dumps({"image_size": 176}))
    assert Architecture.load(tmp_path) == Architecture.load(tmp_path / "phone.net.config") == architecture
    (tmp_path / "phone.run.config").write_text(json.dumps({"image_size": 224}))
    assert Architecture.load(tmp_path / "phone.net.config").resolution == 224


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"__import__('os')", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "an architecture is a JSON object, not list"),
        (b"[{}, {}]", "holds 2 networks; give a file with one of them"),
        (b"3", "an architecture is a JSON object, not int"),
        (b"{}", "'space' must be the name of a search space"),
        (b" " * (5 << 20), "too large for an architecture"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=words) as refused:
        Architecture.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value).splitlines()) == 1


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        Architecture.load(tmp_path / "none.json")
    with pytest.raises(InputFileError, match="a folder; give the JSON file of one architecture in it"):
        Architecture.load(tmp_path)
