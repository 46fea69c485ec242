"""What the operators of a traced network say about which elements can only be removed together.

A pass goes through the operators in order and gives each tensor its labels. Every operator only merges or freezes
classes of labels, so passes are repeated until nothing changes. Only then is decided what leaves a choice: two axes of
one tensor, of which one can be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch

from ofa_search.pruning.graph.calls import Call, values_in
from ofa_search.pruning.graph.classes import NONE, Classes, Labels, collapsed, varying
from ofa_search.pruning.graph.tracing import Trace
from ofa_search.pruning.graph.values import Flags, Value, full, known, parameter, plain

#: Elements of a parameter that each get a label: positions and tables have two axes, weights often more.
_MOST_ELEMENTS, _MOST_OF_MANY_AXES = 1 << 19, 1 << 16
#: In place of an axis: all elements of a parameter with several axes.
EACH = -1

#: Gives the result of an operator, by its analysis, its call and its arguments.
Handler = Callable[["Analysis", Call, Mapping[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Counted:
    """An integer of a module that may be the number of the labels.

    Without a name, it is any that is as large; or the one at `position` in any sequence of integers like `among`.
    """

    module: str
    name: str
    labels: Labels
    among: tuple[int, ...] = ()
    position: int = 0


class Analysis:
    """The state of the analysis of one network."""

    def __init__(self, trace: Trace, handlers: Mapping[str, Handler]) -> None:
        self.trace = trace
        self.classes = Classes()
        #: (parameter, axis) -> labels along it.
        self.labels: dict[tuple[str, int], Labels] = {}
        #: The axes along which layers make labels -> the place in the order of execution.
        self.makers: dict[tuple[str, int], int] = {}
        #: (parameter, axis) -> where zeroing it helps to make the label zero. The others only follow.
        self.made: dict[tuple[str, int], Flags] = {}
        #: (parameter, axis) along which a layer reads labels.
        self.readers: set[tuple[str, int]] = set()
        self.heads: list[Labels] = []
        self.conv_groups: list[Labels] = []
        self.counted: list[Counted] = []
        self.results: dict[str, Any] = {}
        self._conflicts: list[tuple[Labels, str]] = []
        self._handlers = handlers
        self._constants: dict[str, torch.Tensor | None] = {}
        self._place = 0

    def run(self) -> None:
        """Repeat passes until nothing changes."""
        while True:
            before = self.classes.changes
            self._pass()
            if self.classes.changes == before and not self._choose():
                return

    def _pass(self) -> None:
        for kept in (self.made, self.readers, self.heads, self.conv_groups, self.counted, self._conflicts):
            kept.clear()
        self.results = {name: self._input(name) for name in self.trace.inputs}
        for place, call in enumerate(self.trace.calls):
            self._place = place
            result = self._result(call)
            self.results[call.name] = result
            if call.changed is not None:
                self.results[call.changed] = result
        for name in self.trace.outputs:
            for value in values_in(self.results[name]):
                self.freeze(value, "is an output of the network")

    def _input(self, name: str) -> Value:
        tensor, source = self.trace.tensors.get(name), self.trace.inputs[name]
        if tensor is not None and (source is None or not tensor.is_floating_point()):
            return known(tensor)
        shape = self.trace.shapes[name]
        if source is None or prod(shape) <= 1:
            return plain(shape)
        return parameter(source, shape, buffer=source in self.trace.buffers)

    def _result(self, call: Call) -> Any:
        given = call.bind(self.results)
        if call.operator == "getitem":
            return given["list"][given["index"]]
        values = list(values_in(given))
        if call.name not in self._constants:
            constant = all(value.constant is not None for value in values)
            self._constants[call.name] = call.evaluate(given) if constant else None
        found = self._constants[call.name]
        static = all(value.static for value in values)
        if found is not None and not any(value.parameter or (value.labels >= 0).any() for value in values):
            return known(found)
        handler = self._handlers.get(call.operator)
        result = self.unknown(call, values) if handler is None else handler(self, call, given)
        if isinstance(result, Value):
            return replace(result, constant=found, static=static)
        return [replace(each, static=static) for each in result] if isinstance(result, list) else result

    def unknown(self, call: Call, values: Sequence[Value], why: str = "is an operator that is not known") -> Any:
        """The result of an operator that freezes all that enters it."""
        reason = f"{call.operator} in {call.where} {why}"
        for value in values:
            self.freeze(value, reason)
        return self.unlabelled(call, reason)

    def unlabelled(self, call: Call, reason: str | None = None) -> Any:
        """A result without labels, because of a reason if there is one."""
        code = NONE if reason is None else self.classes.code(reason)
        results = [plain(shape, code) for shape in call.shapes]
        return results if call.gives_list else (results[0] if results else None)

    # --- values --------------------------------------------------------------------------------------------

    def value(self, shape: Sequence[int], labels: Labels, zero: Flags) -> Value:
        """A value with resolved labels, as small as possible."""
        resolved = self.classes.resolve(labels)
        resolved, zero = np.broadcast_arrays(resolved, zero)
        return Value(tuple(shape), *collapsed(resolved, zero))

    def labelled(self, value: Value) -> Value:
        """The value with resolved labels; a parameter gets one for each element."""
        if value.parameter is None:
            return self.value(value.shape, value.labels, value.zero)
        name, axes = value.parameter.name, [axis for axis in value.parameter.axes if axis >= 0]
        shape = self.trace.state[name]
        if prod(shape) > (_MOST_ELEMENTS if sum(size > 1 for size in shape) < 3 else _MOST_OF_MANY_AXES):
            return plain(value.shape, self.classes.code(f"each element of {name} would have to be followed"))
        axis = 0 if len(shape) == 1 else EACH
        self.made.setdefault((name, axis), np.ones(1, np.bool_))
        labels = self.axis(name, axis).reshape(shape).transpose(axes).reshape(value.shape)
        return self.value(value.shape, labels, np.ones((1,) * labels.ndim, np.bool_))

    def axis(self, name: str, axis: int) -> Labels:
        """The labels along an axis of a parameter: the same at each call."""
        if (name, axis) not in self.labels:
            shape = self.trace.state[name]
            size = prod(shape) if axis == EACH else shape[axis]
            self.labels[name, axis] = self.classes.fresh(size)
            if size == 1:
                self.freeze_labels(self.labels[name, axis], f"{name} has a single one")
            mine = [key for key in self.labels if key[0] == name]
            if len(mine) > 1 and (name, EACH) in mine:
                for key in mine:
                    self.freeze_labels(self.labels[key], f"{name} is used in two ways")
        return self.labels[name, axis]

    def maker(self, name: str, axis: int) -> Labels:
        """The labels that a layer makes along an axis of its weights."""
        labels = self.axis(name, axis)
        self.makers.setdefault((name, axis), self._place)
        self.made[name, axis] = np.ones(len(labels), np.bool_)
        return labels

    def reader(self, name: str, axis: int, zero: Flags) -> Labels:
        """The labels that a layer reads along an axis of its weights. Where they are not zero, zeroing these helps."""
        labels = self.axis(name, axis)
        self.readers.add((name, axis))
        made = self.made.get((name, axis), np.zeros(1, np.bool_))
        self.made[name, axis] = full(made, labels.shape) | ~full(zero, labels.shape)
        return labels

    def follower(self, name: str, axis: int) -> Labels:
        """The labels along an axis that is cut with them, but need not be zero."""
        self.made.setdefault((name, axis), np.zeros(1, np.bool_))
        return self.axis(name, axis)

    # --- what operators say ----------------------------------------------------------------------------------

    def freeze(self, value: Value, reason: str) -> None:
        """Nothing of the value can be removed. Layers read parameters in whole, so that freezes none of them."""
        if value.parameter is None:
            self.freeze_labels(value.labels, reason)

    def freeze_labels(self, labels: Labels, reason: str) -> None:
        self.classes.freeze(labels, self.classes.code(reason))

    def conflict(self, labels: Labels, reason: str) -> None:
        """These are in the way of others: they are frozen, unless the others turn out to be."""
        self._conflicts.append((labels, reason))

    def merge(self, one: Labels, other: Labels, reason: str) -> None:
        """Elements at the same place go together. Where only one of two has a label, it is frozen."""
        one, other = np.broadcast_arrays(self.classes.resolve(one), self.classes.resolve(other))
        both = (one >= 0) & (other >= 0)
        if both.any():
            self.classes.merge(one[both], other[both])
        for mine, partner in ((one, other), (other, one)):
            alone = (mine >= 0) & (partner < 0)
            for code in np.unique(partner[alone]):
                cause = self.classes.code(reason) if code == NONE else int(code)
                self.classes.freeze(mine[alone & (partner == code)], cause)

    def merge_along(self, value: Value, axes: Sequence[int], reason: str) -> Value:
        """Elements along the axes go together."""
        value = self.labelled(value)
        for axis in axes:
            if value.labels.shape[axis] > 1:
                self.merge(value.labels, np.take(value.labels, [0], axis), reason)
        return self.labelled(value)

    def count(self, module: str, name: str, labels: Labels, among: Sequence[int] = (), position: int = 0) -> None:
        """Say that an integer of a module, if it has one of this name, is the number of these labels."""
        self.counted.append(Counted(module, name, labels.ravel(), tuple(among), position))

    # --- what is left open -----------------------------------------------------------------------------------

    def _choose(self) -> bool:
        """Decide along which axis tensors are cut that have labels along several. Whether there was any."""
        before = self.classes.changes
        for labels, reason in self._conflicts:
            self.freeze_labels(labels, reason)
        if self.classes.changes != before:
            return True
        for name, result in self.results.items():
            for value in values_in(result):
                if value.labels.size > 1:
                    self._choose_axis(name, self.labelled(value))
        for name, axis in list(self.labels):
            if axis == EACH:
                self._choose_axis_of_parameter(name)
        return self.classes.changes != before

    def _choose_axis(self, name: str, value: Value) -> None:
        axes = varying(value.labels)
        if len(axes) > 1:
            finest = max(axes, key=lambda axis: _kept_apart(value.labels, axis))
            others = [axis for axis in axes if axis != finest]
            self.merge_along(value, others, f"{name} can only be cut along one axis")

    def _choose_axis_of_parameter(self, name: str) -> None:
        """Elements that nothing has met, like the unused ones of a table, go with their neighbours."""
        shape = self.trace.state[name]
        labels = self.classes.resolve(self.labels[name, EACH]).reshape(shape)
        alone = self.classes.alone(labels)
        for axis in varying(labels) if alone.any() else ():
            rows = np.moveaxis(labels, axis, 0).reshape(shape[axis], -1)
            flags = np.moveaxis(alone, axis, 0).reshape(shape[axis], -1)
            partners = np.where(flags, rows.min(), rows).max(1, keepdims=True)
            if (flags | (rows == partners)).all():
                self.merge(rows[flags], np.broadcast_to(partners, rows.shape)[flags], f"{name} is frozen in part")
                break
        self._choose_axis(name, self.labelled(parameter(name, shape)))


def _kept_apart(labels: Labels, axis: int) -> int:
    """How many classes there are at most if elements along all other axes go together."""
    return len(np.unique(np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1), axis=0))
