"""What the words of the language mean."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support.spaces import registered

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import SPACE_CHECKS
from ofa_profiler.spaces import known_space, registry
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.language import (
    block,
    choice,
    concat,
    conv,
    dependent,
    depthwise,
    global_pool,
    inputs,
    linear,
    optional,
    repeat,
    residual,
    rounded,
    sequence,
    space,
)
from ofa_profiler.spaces.mixed import MixedSpace


def of(*parts, resolutions=(8,)):
    return space(sequence(*parts, global_pool(), linear()), resolutions=resolutions, classes=4).named("my:SPACE")


def names(made) -> list[str]:
    return [gene.name for gene in made.genes[1:]]


def widths(made, **chosen) -> list[int]:
    """The channels after each op but the last two, with these choices, and the first option of all others."""
    values = [chosen.get(gene.name.replace(".", "_"), gene.choices[0]) for gene in made.genes]
    with registered(made):
        return [op.output_shape[-1] for op in made.ops(made.from_values(values))[:-2]]


def test_an_object_is_one_choice_wherever_it_stands():
    width = choice("width", [4, 8])
    made = of(conv(width), conv(width * 2), conv(dependent(max, width, 6)))
    assert names(made) == ["width"]
    assert widths(made, width=4) == [4, 8, 6]
    assert widths(made, width=8) == [8, 16, 8]


def test_a_function_makes_choices_of_their_own_for_each_repetition():
    own = of(repeat(lambda: conv(choice("width", [4, 8])), choice("depth", [1, 2]), name="stage"))
    assert names(own) == ["stage.depth", "stage.block0.width", "stage.block1.width"]
    shared = of(repeat(conv(choice("width", [4, 8])), choice("depth", [1, 2]), name="stage"))
    assert names(shared) == ["stage.depth", "stage.width"]
    assert [slot.name for slot in own.slots] == ["stage_block0", "stage_block1", "global_pool", "linear"]


def test_the_first_repetition_can_be_another_one():
    made = of(repeat(lambda number: depthwise(3, 1 if number else 2), choice("depth", [2, 3])))
    shapes = [op.output_shape for op in made.unique_ops()]
    assert shapes == [(4, 4, 3), (4, 4, 3), (1, 1, 3), (4,)]
    assert [slot.genes for slot in made.slots] == [(), (), (1,), (), ()], "no slot depends on what changes nothing"


def test_no_repetition_is_a_number_of_times_too():
    made = of(conv(4), repeat(conv(8), choice("times", [0, 1, 2])))
    assert [widths(made, repeat_times=times) for times in (0, 1, 2)] == [[4], [4, 8], [4, 8, 8]]


def test_optional_layers_follow_a_name_a_choice_or_a_condition():
    depth = choice("depth", [1, 2, 3])
    made = of(conv(4), optional(conv(8), "more"), repeat(conv(16), depth), optional(conv(32), depth > 2))
    assert names(made) == ["more", "depth"]
    assert widths(made, more=True, depth=3) == [4, 8, 16, 16, 16, 32]
    assert widths(made, more=False, depth=2) == [4, 16, 16]


def test_a_choice_of_layers_is_one_op_unless_an_option_has_several():
    one = of(choice("mixer", [conv(4), residual(conv(3)), None]))
    assert [slot.name for slot in one.slots] == ["mixer", "global_pool", "linear"]
    several = of(choice("mixer", [conv(4), sequence(conv(5), conv(6))]))
    assert [slot.name for slot in several.slots][:3] == ["mixer0_conv", "mixer1_conv", "mixer1_conv2"]
    assert [widths(several, mixer=number) for number in (0, 1)] == [[4], [5, 6]]


def test_options_are_written_as_they_are_read():
    kind = choice("activation", ["relu", "h_swish"])
    made = of(
        choice("mixer", [conv(4), block(conv(8), conv(8)), None]), conv(4, activation=kind), optional(conv(4), "o")
    )
    with registered(made):
        written = made.largest.to_json()
        assert written["choices"] == {"activation": "h_swish", "mixer": "none", "o": True}
        assert (
            Architecture.from_json({**written, "choices": dict(reversed(written["choices"].items()))}) == made.largest
        )


def test_a_residual_adds_where_the_shapes_are_equal():
    width = choice("width", [4, 8])
    plain, projected = (of(conv(4), residual(conv(width), project=each)) for each in (False, True))
    assert [op.kind for op in plain.unique_ops()[1:3]] == ["residual(conv)", "conv"]
    assert [op.params for op in plain.unique_ops()[1:3]] == [16 + 8, 32 + 16]
    assert [op.params for op in projected.unique_ops()[1:3]] == [16 + 8, 2 * (32 + 16)]


def test_inputs_are_what_a_layer_gets():
    made = of(
        conv(4),
        conv(inputs * choice("expand", [2, 3])),
        concat(conv(inputs // 2), conv(5)),
        conv(rounded(inputs * 0.5)),
    )
    assert widths(made, expand=3) == [4, 12, 11, 8]


def test_genes_without_effect_are_zero():
    made = of(conv(4), repeat(lambda: conv(4, choice("kernel", [1, 3])), choice("depth", [1, 2]), name="s"))
    genomes = np.array([[0, 0, 1, 1], [0, 1, 1, 1]], dtype=np.int8)
    assert made.canonical(genomes).tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]
    assert made.genes[3].switch == 1, "features of predictors know it, too"


def test_the_fastest_network_is_exact():
    made = of(conv(choice("a", [8, 4]), 3), conv(choice("b", [4, 8]), choice("kernel", [3, 1])), resolutions=(8, 16))
    cost = AdditiveCost.from_ops(made, lambda op: op.macs)
    with registered(made):
        everything = [
            made.macs(a) for a in made.decode(np.unique(made.sample_genomes(np.random.default_rng(0), 500), axis=0))
        ]
        assert len(everything) == 16
        assert cost.minimum()[0] == min(everything)
        assert cost.maximum()[0] == max(everything)


def test_networks_of_mixed_precision():
    made = of(conv(4), optional(conv(8), "more"), conv(4))
    with registered(made):
        mixed = MixedSpace.of(made)
        genomes = mixed.sample_genomes(np.random.default_rng(0), 20)
        assert (mixed.encode(mixed.decode(genomes)) == genomes).all()
        assert (mixed.canonical(genomes) == genomes).all()


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (choice("mixer", [None, conv(4), conv(5)]), None),
        (choice("mixer", [conv(4), None]), "slot mixer is there"),
        (optional(optional(conv(4), "inner"), "outer"), "slot conv2 is there"),
    ],
)
def test_not_every_space_has_networks_of_mixed_precision(part, problem):
    mixed = MixedSpace.of(of(conv(4), part))
    if problem is None:
        assert mixed.activities[1].switch == 1
        return
    with pytest.raises(UsageError, match=f"my:SPACE has no mixed networks: whether {problem}"):
        _ = mixed.activities


# --- names -----------------------------------------------------------------------------------------------

FILE = """
from ofa_profiler.spaces.language import *
print("a user's file may print")
network = sequence(conv(dependent(lambda width: 2 * width, choice("width", [4, 8]))), global_pool(), linear())
SPACE = space(network, resolutions=[8, 16], classes=10)
other = 7
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "my_own_space.py").write_text(FILE)
    (tmp_path / "wrong_space.py").write_text(FILE.replace("* width", "* width + 0.5"))
    monkeypatch.chdir(tmp_path)
    yield "my_own_space:SPACE"
    for entries in (registry._SPACES._entries, SPACE_CHECKS._entries):
        entries.pop("my_own_space:SPACE", None)


def test_the_notations_of_the_ofa_authors_are_not_for_them(file):
    """Whoever reads such a file while the space is loaded gets the spaces of the authors."""
    made = get_space(file)
    settings = get_space("ofa-mbv3-w1.0").smallest.to_ofa()
    del settings["space"]
    assert Architecture.from_json(settings, "ofa-mbv3-w1.0") == get_space("ofa-mbv3-w1.0").smallest
    config = get_space("cifar-mbv3").smallest.to_net_config()
    assert Architecture.from_json(config) == get_space("cifar-mbv3").smallest
    for write in (made.smallest.to_ofa, made.smallest.to_net_config, lambda: Architecture.from_json(settings, file)):
        with pytest.raises(UsageError, match="my_own_space:SPACE is a user's"):
            write()


def test_a_space_is_known_by_module_and_name(file, capsys):
    with pytest.raises(UsageError, match="give --space my_own_space:SPACE"):
        known_space(file)
    with pytest.raises(UsageError, match="give --space my_own_space:SPACE"):
        Architecture.from_json({"space": file, "stages": [], "resolution": 8, "choices": {"width": 4}})
    made = get_space(file)
    assert made.name == file
    assert made is get_space(file) is known_space(file)
    assert made.sample(np.random.default_rng(0)).space == file
    assert capsys.readouterr().out == "", "stdout is for the JSON document"
    assert get_space(f"{file}-mixed").plain is made


def test_other_processes_get_the_space_by_its_name(file):
    made = get_space(file).with_resolutions([16]).with_classes(3)
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.unique_ops() == made.unique_ops()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my_own_space:other", "other is int, not a space"),
        ("my_own_space:nothing", "AttributeError"),
        ("no_such_module:SPACE", "No module named 'no_such_module'"),
        (
            "wrong_space:SPACE",
            r"wrong_space:SPACE: conv: the width of conv must be a whole number .*not 8.5.*width = 4",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(file, name, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        get_space(name)
    assert "\n" not in str(caught.value)
