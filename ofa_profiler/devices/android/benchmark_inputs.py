"""What `benchmark_model` gives to the inputs of a model: exact values, if the kit has them, else made-up numbers.

The program takes inputs by position and only warns if their names differ, so they are called `i0`, `i1`, ...: names of
tensors contain the separators of its options. Sizes that are open in the file get those of the option. LiteRT's tool
does not know the options. It warns, goes on, and makes up all values itself.
Source: `tensorflow/lite/tools/benchmark/benchmark_tflite_model.cc`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_profiler.devices.android.benchmark_messages import Line

#: The description of an input in a kit: `name`, `dtype`, `shape`, and `values`, the path of a file, if they are exact.
Input = Mapping[str, Any]

_IGNORED = "Unconsumed cmdline flags:"
_OPTION = "--input_layer"
#: How the names of types begin whose values are all valid.
_ANY_VALUES = ("float", "int8", "uint8")


def input_options(inputs: Sequence[Input], folder: str) -> list[str]:
    """Return the options for the inputs of a model whose files of values are in `folder`; none without exact values.

    Raises `ValueError` for an input that the program cannot be given.
    """
    exact = {place: Path(one["values"]).name for place, one in enumerate(inputs) if "values" in one}
    if not exact:
        return []
    for one in inputs:
        if not one["shape"]:
            raise ValueError(f"benchmark_model cannot be given the input {one['name']!r:.80}, a single number")
    names = [f"i{place}" for place in range(len(inputs))]
    return [
        f"{_OPTION}={','.join(names)}",
        f"{_OPTION}_shape={':'.join(','.join(map(str, one['shape'])) for one in inputs)}",
        f"{_OPTION}_value_files={','.join(f'{names[place]}:{folder}/{file}' for place, file in exact.items())}",
    ]


def check_inputs(lines: Sequence[Line], inputs: Sequence[Input], model: Callable[[], bytes]) -> tuple[str, ...]:
    """Return notes if the program ignored the options. Raises `ValueError` if it then measured another thing.

    Made-up floats take the same time as others, and integers of 8 bits are images or quantized tensors, not indices.
    Other made-up integers may be no valid indices. Open sizes would be 1.
    """
    if not any(_IGNORED in line.text and _OPTION in line.text for line in lines):
        return ()
    exact = [one for one in inputs if "values" in one and not str(one["dtype"]).startswith(_ANY_VALUES)]
    needs = str(exact[0]["name"]) if exact else ""
    if needs or _is_open(model()):
        what = f"values of inputs, which {needs!r:.80} needs" if needs else "sizes of inputs, which this model needs"
        raise ValueError(f"this benchmark_model does not take {what}; use that of TensorFlow Lite")
    return ("this benchmark_model does not take values of inputs, and makes them up",)


def _is_open(model: bytes) -> bool:
    """Whether inputs of a TFLite file have sizes that are not in the file."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped] # an extra

    details = Interpreter(model_content=model, num_threads=1).get_input_details()
    return any(size < 0 for one in details for size in one["shape_signature"])
