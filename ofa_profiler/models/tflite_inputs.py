"""Which integers are valid for an input of a TFLite graph, as far as its operators tell."""

from __future__ import annotations

from ofa_profiler.models.tflite_file import Operator, TfliteFile

_INTEGERS = {"int32", "int64"}
#: Operators that hand the values of their first input on.
_PASSING = {"CAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "TILE"}


def index_range(file: TfliteFile, i: int) -> tuple[int, int] | None:
    """The smallest index, and the largest plus 1, that all tables have which are read at the places in tensor `i`."""
    if file.tensors[i].dtype not in _INTEGERS:
        return None
    sizes: list[int] = []
    waiting, seen = [i], {i}
    while waiting:
        tensor = waiting.pop()
        for position in file.users.get(tensor, ()):
            operator = file.operators[position]
            if (rows := _rows(file, operator, tensor)) is not None:
                sizes.append(rows)
            elif operator.kind in _PASSING and operator.inputs[0] == tensor:
                waiting += [out for out in operator.outputs if out not in seen]
                seen.update(operator.outputs)
    return (0, min(sizes)) if sizes else None


def _rows(file: TfliteFile, operator: Operator, tensor: int) -> int | None:
    """How many places the table has that the operator reads at `tensor`."""
    if len(operator.inputs) < 2:
        return None
    if operator.kind == "GATHER" and operator.inputs[1] == tensor:
        table = file.tensors[operator.inputs[0]].shape
        axis = int(getattr(operator.raw.builtinOptions, "axis", 0))
    elif operator.kind == "EMBEDDING_LOOKUP" and operator.inputs[0] == tensor:
        table, axis = file.tensors[operator.inputs[1]].shape, 0
    else:
        return None
    in_table = -len(table) <= axis < len(table)
    return table[axis] if in_table and table[axis] > 0 else None
