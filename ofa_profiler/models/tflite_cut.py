"""Where a TFLite graph must not be cut: what XNNPACK computes as one, and what no input of a model can carry."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ofa_profiler.models.tflite_file import UNPACKING, TfliteFile

#: XNNPACK lets the operator before them clamp its results.
_CLAMPS = {"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"}
#: XNNPACK pads in these operators.
_PADDED = {"CONV_2D", "DEPTHWISE_CONV_2D"}
_SHAPES = {"SHAPE", "RANK"}
_INTEGERS = {"int32", "int64"}
#: Other graphs, and variables that live from call to call.
STATEFUL = {
    "ASSIGN_VARIABLE",
    "CALL",
    "CALL_ONCE",
    "HASHTABLE",
    "HASHTABLE_FIND",
    "HASHTABLE_IMPORT",
    "HASHTABLE_SIZE",
    "IF",
    "READ_VARIABLE",
    "VAR_HANDLE",
    "WHILE",
}


def is_cuttable(file: TfliteFile) -> bool:
    """Whether the graph has neither control flow nor variables that operators find by name, nor scales in tensors."""
    closed = STATEFUL | {operator.kind for operator in file.operators if operator.kind.startswith("STABLEHLO_")}
    return not any(operator.kind in closed for operator in file.operators) and not any(
        tensor.has_blocks for tensor in file.tensors
    )


def constant_makers(file: TfliteFile) -> dict[int, int]:
    """Tensor -> the operator that unpacks it from constants. Such operators are no kernels."""
    found: dict[int, int] = {}
    for position, operator in enumerate(file.operators):
        if operator.kind in UNPACKING and all(file.tensors[i].is_constant or i in found for i in operator.given):
            found.update(dict.fromkeys(operator.outputs, position))
    return found


def shape_tensors(file: TfliteFile) -> frozenset[int]:
    """Integers that follow from shapes alone, so that they are constant as long as the network has these shapes."""
    found: set[int] = set()
    for operator in file.operators:
        known = operator.kind in _SHAPES or (
            any(i in found for i in operator.given)
            and all(i in found or file.tensors[i].is_constant for i in operator.given)
        )
        if known and all(file.tensors[i].dtype in _INTEGERS for i in operator.outputs):
            found.update(operator.outputs)
    return frozenset(found)


def joined_operators(
    file: TfliteFile, order: Collection[int], carried: Callable[[int], bool], fixed: Collection[int]
) -> frozenset[int]:
    """The indices within `order` (positions of operators) of those that stay with the operator before them.

    `carried`: whether a tensor can be an input of a model. The users of a state stay together.
    """
    found: set[int] = set()
    positions = list(order)
    for index in range(1, len(positions)):
        if _is_fused(file, positions[index - 1], positions[index]):
            found.add(index)
    index_of = {position: index for index, position in enumerate(positions)}
    for i, tensor in enumerate(file.tensors):
        if i in fixed or not (tensor.is_variable or (i in file.maker and not carried(i))):
            continue
        ends = [index_of[at] for at in (file.maker.get(i), *file.users.get(i, ())) if at in index_of]
        if ends:
            found.update(range(min(ends) + 1, max(ends) + 1))
    return frozenset(found)


def _is_fused(file: TfliteFile, before: int, here: int) -> bool:
    first, second = file.operators[before], file.operators[here]
    between = set(first.outputs) & set(second.given)
    alone = all(file.users[i] == (here,) and i not in file.outputs for i in between)
    if not between or not alone:
        return False
    return second.kind in _CLAMPS or (first.kind in ("PAD", "PADV2") and second.kind in _PADDED)
