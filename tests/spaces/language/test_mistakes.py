"""Mistakes in a space are one clear line: which name, and what is wrong."""

from __future__ import annotations

import pytest
from support.spaces import registered

from ofa_profiler import Architecture
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.language import (
    activation,
    block,
    choice,
    concat,
    conv,
    dependent,
    global_pool,
    inputs,
    linear,
    optional,
    repeat,
    residual,
    sequence,
    space,
)


def made(*parts):
    return space(sequence(*parts), resolutions=[8], classes=4)


MISTAKES = {
    "choice 'a' has an option twice": lambda: choice("a", [3, 3]),
    "choice 'a' takes a list of options": lambda: choice("a", 3),
    "choice 'a' has 0 options": lambda: choice("a", []),
    "the name of a choice is one word": lambda: choice("a b", [1]),
    "use dependent": lambda: choice("a", [choice("b", [1]), 2]),
    "choice 'a' > 1. has no value yet": lambda: 3 if choice("a", [1, 2]) > 1 else 4,
    "dependent\\(function": lambda: dependent(3),
    "two different choices are called s.a": lambda: made(
        sequence(conv(choice("a", [1, 2])), conv(choice("a", [1, 2])), name="s"), linear()
    ),
    "a choice cannot be called resolution": lambda: made(conv(choice("resolution", [8])), linear()),
    "sequence takes layers, not 3": lambda: made(conv(4), 3),
    "it is a function: call it": lambda: made(global_pool),
    "the function of repeat returns layers, not None": lambda: repeat(lambda: None, 2),
    "repeat takes a whole number of times": lambda: repeat(conv(4), 1.5),
    "repeat takes 1 to 1000 times": lambda: repeat(conv(4), 0),
    "choice 'a' takes layers, not 3": lambda: made(choice("a", [conv(3), 3])),
    "concat takes two branches": lambda: concat(conv(4)),
    "sequence takes one layer or more": lambda: made(sequence()),
    "inputs is what a layer gets": lambda: made(optional(conv(4), inputs > 3), linear()),
    "conv: the width of conv must be a whole number from 1 on, not 1.5; rounded": lambda: made(conv(inputs * 0.5)),
    "block: the kernel of conv must be odd, not 2 .input 8 x 8 x 3, a = 2": lambda: made(
        block(conv(4), conv(4, choice("a", [1, 2])))
    ),
    "conv2: conv takes a map, but gets a vector of 4 values": lambda: made(conv(3), linear(), conv(4)),
    "conv cannot divide 3 channels into 4 by 2 groups": lambda: made(conv(4, groups=2)),
    "unknown activation 'tanh'; choose from": lambda: made(conv(4), activation("tanh")),
    "concat cannot join maps of different sizes": lambda: made(concat(conv(4), conv(4, 3, 2))),
    "residual cannot bring": lambda: made(residual(conv(4), linear(), project=True)),
    "all layers of the network are optional": lambda: made(optional(conv(4), "a")),
    "fails for .'x'.: TypeError": lambda: made(conv(dependent(lambda text: text + 1, choice("a", ["x", "y"])))),
    "gives a choice; a function": lambda: made(conv(dependent(lambda _: choice("b", [1]), choice("a", [1])))),
    "depends on 10000000 combinations of choices, too many": lambda: made(
        block(*(conv(choice(f"a{i}", range(1, 11))) for i in range(7)))
    ),
    "classes of a space must be whole numbers": lambda: space(conv(4), resolutions=[8], classes=0),
    "resolutions of a space must be": lambda: space(conv(4), resolutions=[8.5], classes=3),
}


@pytest.mark.parametrize("problem", MISTAKES)
def test_a_mistake_is_named(problem):
    with pytest.raises(UsageError, match=problem) as caught:
        MISTAKES[problem]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"resolution": 9}, "9"),
        ({"choices": {"depth": 1, "k0": 3}}, "space my:SPACE has no choice 'depth'"),
        ({"choices": {"r.depth": 1, "r.block0.k": 3, "r.block1.k": 3}}, "r.block1.k has no effect in this network"),
        ({"choices": {"r.depth": 2, "r.block0.k": 3}}, "r.block1.k is missing"),
        ({"choices": {"r.depth": 7, "r.block0.k": 3}}, r"r.depth 7 is not one of \[1, 2\]"),
        ({"choices": {"r.depth": [1], "r.block0.k": 3}}, "choices.r.depth must be a number or a text"),
        ({"choices": [1]}, "choices must be an object"),
        ({"stages": [{"depth": 1, "kernel_sizes": [3]}]}, "no stages"),
    ],
)
def test_what_is_wrong_with_an_architecture_is_named(changed, problem):
    written = made(repeat(lambda: conv(4, choice("k", [1, 3])), choice("depth", [1, 2]), name="r"), linear())
    with registered(written.named("my:SPACE")) as found:
        right = {"space": "my:SPACE", "resolution": 8, "stages": [], "choices": {"r.depth": 1, "r.block0.k": 3}}
        assert Architecture.from_json(right) in found.decode(found.encode([Architecture.from_json(right)]))
        with pytest.raises(UsageError, match=problem):
            Architecture.from_json({**right, **changed})


@pytest.mark.parametrize("text", ["", "7", "[]", '[["a","Nothing",{},["input"]]]', '[["a","Conv",{"x":1},["input"]]]'])
def test_damaged_layers_of_an_op_are_refused(text):
    op = made(conv(4), linear()).unique_ops()[0]
    with pytest.raises(UsageError):
        Op.from_json({**op.to_json(), "attributes": {"graph": text}}).graph  # noqa: B018
