"""Random small search spaces, written in the language."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from ofa_profiler.spaces.language import (
    activation,
    average_pool,
    block,
    choice,
    concat,
    conv,
    dependent,
    depthwise,
    global_pool,
    inputs,
    linear,
    max_pool,
    optional,
    repeat,
    residual,
    rounded,
    sequence,
    space,
    squeeze_excite,
)
from ofa_profiler.spaces.language.parts import Part
from ofa_profiler.spaces.language.space import LanguageSpace

ACTIVATIONS = ("", "relu", "relu6", "h_swish", "h_sigmoid", "sigmoid", "silu")


class Writer:
    """Writes parts with choices that have names of their own, of which some are used in several places."""

    def __init__(self, draw) -> None:
        self._draw, self._numbers, self._shared = draw, count(), []

    def _one(self, *options):
        return self._draw(st.sampled_from(options))

    def _choice(self, *options):
        made = choice(f"c{next(self._numbers)}", options)
        if isinstance(options[0], int) and not isinstance(options[0], bool):
            self._shared.append(made)
        return made

    def width(self):
        value = self._one("number", "choice", "inputs", "rounded", "shared", "dependent")
        if value == "number":
            return self._one(4, 6, 8)
        if value == "inputs":
            return inputs * self._choice(1, 2)
        if value == "rounded":
            return rounded(inputs * self._one(0.5, 0.75, 1.5), 4)
        if value == "dependent" and self._shared:
            return dependent(lambda *values: 4 + 2 * max(values), *self._shared[-2:])
        if value == "shared" and self._shared:
            return self._one(*self._shared) * 2 + 4
        return self._choice(4, 8)

    def _name(self):
        return self._one(None, f"n{next(self._numbers)}")

    def layer(self) -> Part:
        kind = self._one("conv", "depthwise", "activation", "squeeze_excite", "max_pool", "average_pool")
        active = self._one(*ACTIVATIONS)
        if kind == "conv":
            kernel = self._one(1, 3, self._choice(1, 3, 5))
            return conv(self.width(), kernel, self._one(1, 1, 2, self._choice(1, 2)), active, name=self._name())
        if kind == "depthwise":
            return depthwise(self._choice(3, 5), self._one(1, 2), active)
        if kind == "activation":
            return activation(self._one(active, self._choice("relu", "h_swish", "silu")))
        if kind == "squeeze_excite":
            return squeeze_excite(self._one(1, 4))
        return {"max_pool": max_pool, "average_pool": average_pool}[kind](self._one(2, 3), self._one(1, 2))

    def part(self, depth: int) -> Part:
        if depth == 0 or self._one(True, False):
            return self.layer()
        kind = self._one("sequence", "block", "residual", "concat", "optional", "repeat", "shared repeat", "choice")
        inner = [self.part(depth - 1) for _ in range(self._one(1, 2))]
        if kind == "optional":
            return optional(inner[0], self._condition())
        if kind == "repeat":
            name = f"r{next(self._numbers)}"
            return repeat(lambda number: self.part(depth - 1), self._choice(0, 1, 2), name=name)
        if kind == "shared repeat":
            return repeat(inner[0], self._one(2, self._choice(1, 2)))
        if kind == "choice":
            return sequence(choice(f"c{next(self._numbers)}", [*inner, None]))
        if kind == "concat":
            same = self._one(3, 5)
            return concat(conv(self.width()), conv(self.width(), same, activation=self._one(*ACTIVATIONS)))
        if kind == "residual":
            return residual(*inner, project=self._one(True, False), activation=self._one("", "relu"))
        return {"sequence": sequence, "block": block}[kind](*inner, name=self._name())

    def _condition(self):
        if self._shared and self._one(True, False):
            return self._one(*self._shared) > 2
        return f"c{next(self._numbers)}"


@st.composite
def language_spaces(draw, depth: int = 2) -> LanguageSpace:
    writer = Writer(draw)
    body = [writer.part(depth) for _ in range(draw(st.integers(1, 3)))]
    head = [global_pool(), linear(writer.width(), "relu")] if draw(st.booleans()) else []
    return space(sequence(conv(writer.width(), 3, 2), *body, *head, linear()), resolutions=[8, 13], classes=5)
