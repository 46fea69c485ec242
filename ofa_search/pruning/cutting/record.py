"""What a cut removed, as data: the indices that are kept in each tensor, and the attributes that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

from ofa_profiler.errors import UsageError

FORMAT = 1
#: An attribute of a module: an integer, or a sequence of them.
Attribute = int | tuple[int, ...]


@dataclass(frozen=True)
class TensorCut:
    """The indices that are kept along an axis of `size`, in ascending order."""

    tensor: str  # its name in the state dict
    axis: int
    size: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class AttributeCut:
    """The new value of an attribute of a module."""

    module: str  # its path; empty for the network itself
    attribute: str
    value: Attribute


@dataclass(frozen=True)
class CutRecord:
    """How the whole network becomes the smaller one.

    As JSON: `{"format": 1, "tensors": {NAME: {AXIS: {"of": SIZE, "kept": [INDEX, …]}}}, "attributes": {MODULE: {NAME:
    INTEGER or [INTEGER, …]}}}`. A `nn.MultiheadAttention` of which an attribute is listed becomes a `PrunedAttention`.
    """

    tensors: tuple[TensorCut, ...] = ()
    attributes: tuple[AttributeCut, ...] = ()

    def then(self, second: CutRecord) -> CutRecord:
        """The record of both cuts, of which the second was made to the network that the first had left."""
        first = {(each.tensor, each.axis): each for each in self.tensors}
        joined = dict(first)
        for each in second.tensors:
            key = (each.tensor, each.axis)
            before = first.get(key)
            if before is None:
                joined[key] = each
            elif len(before.kept) != each.size:
                raise UsageError(f"{each.tensor}: {len(before.kept)} were kept, and the second cut had {each.size}")
            else:
                joined[key] = TensorCut(*key, before.size, tuple(before.kept[i] for i in each.kept))
        values = {(each.module, each.attribute): each for each in (*self.attributes, *second.attributes)}
        return CutRecord(tuple(joined.values()), tuple(values.values()))

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dumps`."""
        tensors: dict[str, Any] = {}
        for each in self.tensors:
            tensors.setdefault(each.tensor, {})[str(each.axis)] = {"of": each.size, "kept": list(each.kept)}
        attributes: dict[str, Any] = {}
        for found in self.attributes:
            value = list(found.value) if isinstance(found.value, tuple) else found.value
            attributes.setdefault(found.module, {})[found.attribute] = value
        return {"format": FORMAT, "tensors": tensors, "attributes": attributes}

    @classmethod
    def from_json(cls, document: object) -> CutRecord:
        """The record of a dict as `to_json` gives it. Raises `UsageError`, with the place of what is wrong."""
        fields = _mapping(document, "the record")
        if fields.get("format") != FORMAT:
            raise UsageError(f"the record has format {fields.get('format')!r:.40}, not {FORMAT}")
        tensors = _mapping(fields.get("tensors"), "tensors of the record")
        attributes = _mapping(fields.get("attributes"), "attributes of the record")
        cuts = [_tensor(name, *each) for name, axes in tensors.items() for each in _mapping(axes, name).items()]
        values = [
            AttributeCut(module, name, _value(value, f"{module}.{name}"))
            for module, named in attributes.items()
            for name, value in _mapping(named, f"attributes of {module!r}").items()
        ]
        return cls(tuple(cuts), tuple(values))


def _tensor(name: str, axis: str, document: object) -> TensorCut:
    where = f"{name}, axis {axis}"
    fields = _mapping(document, where)
    if not (axis.isascii() and axis.isdigit() and len(axis) < 3):
        raise UsageError(f"{where}: no number of an axis")
    size, kept = fields.get("of"), fields.get("kept")
    if not _is_integer(size) or not isinstance(kept, Sequence) or isinstance(kept, str):
        raise UsageError(f"{where}: no 'of' with a size, or no 'kept' with indices")
    if not kept or not all(map(_is_integer, kept)):
        raise UsageError(f"{where}: 'kept' has no indices, or something else")
    if any(later <= earlier for earlier, later in pairwise(kept)) or kept[0] < 0 or kept[-1] >= size:
        raise UsageError(f"{where}: 'kept' is not ascending within 0 to {size - 1}")
    return TensorCut(name, int(axis), size, tuple(kept))


def _value(value: object, where: str) -> Attribute:
    if _is_integer(value):
        return value
    if isinstance(value, list) and value and all(map(_is_integer, value)):
        return tuple(value)
    raise UsageError(f"{where}: neither a positive integer nor a list of them")


def _is_integer(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{where}: no object")
    return value
