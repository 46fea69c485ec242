"""The input data of models. It follows from the descriptions in the kit, with the same values every time.

A description is a dict: `name` (null: by position), `dtype` by its name in numpy (null: that of the model), `shape`,
and for integers `range`: the smallest value, and the largest value plus 1. For floats, it can have `span`: the smallest
and the largest value. `values` names a file of the kit with exact values by the SHA-256 of its content: the elements
in C order, little-endian. The worker puts its bytes into `data`.
"""

import os

from .files import verified

DEFAULT_RANGE = [0, 2]  # valid as an index into almost any table
LEGACY_RANGE = [0, 127]
SMALLEST_FLOAT16 = 2.0**-14  # the smallest normal number


def descriptions(entry):
    """Return the inputs of a model from its entry in the manifest. Old manifests have the shape of a single input."""
    if "inputs" in entry:
        return entry["inputs"]
    return [{"name": None, "dtype": None, "shape": entry["input_shape"], "range": LEGACY_RANGE}]


def in_folder(described, folder):
    """Return descriptions whose files of exact values have paths. `folder` holds the files."""
    return [
        dict(one, values=os.path.join(folder, os.path.basename(one["values"]))) if "values" in one else one
        for one in described
    ]


def with_data(described):
    """Return descriptions with the bytes of their files of exact values. Raises `Damaged`."""
    return [
        dict(one, data=verified(one["values"], os.path.basename(one["values"]).split(".")[0]))
        if "values" in one
        else one
        for one in described
    ]


def arrays(numpy, described, found):
    """Return an array for each input of a model, in the order of `found`: its (name, dtype, shape) in the model.

    A size that is no positive number is open: it is that of the description. A shape of None is open as a whole. Raises
    `ValueError` if they differ from the inputs that the kit describes.
    """
    if len(found) != len(described):
        names = ", ".join(str(name) for name, _, _ in found)
        raise ValueError("the model has %d inputs (%s), but the kit describes %d" % (len(found), names, len(described)))
    return [_array(numpy, described, position, *one) for position, one in enumerate(found)]


def _array(numpy, described, position, name, dtype, shape):
    matches = [number for number, other in enumerate(described) if other["name"] == name and name is not None]
    number = matches[0] if matches else position
    expected = described[number]
    if expected["name"] not in (None, name):
        names = ", ".join(str(other["name"]) for other in described)
        raise ValueError("the model has an input %r, but the kit describes %s" % (name, names))
    if not fits(expected["shape"], shape) or expected["dtype"] not in (None, dtype):
        wanted = "%s %s" % (expected["dtype"] or dtype, list(expected["shape"]))
        words = "the input %r of the model is %s %s, but the kit describes %s"
        raise ValueError(words % (name, dtype, list(shape or ()), wanted))
    if "data" in expected:
        return exact_values(numpy, dtype, expected["shape"], expected["data"], name)
    return values(numpy, dtype, list(expected["shape"]), expected, number)


def fits(described, shape):
    """Return whether a described shape is one that the model takes."""
    if shape is None:
        return True
    is_open = [not isinstance(size, int) or size <= 0 for size in shape]
    return len(described) == len(shape) and all(
        free or size == wanted for free, size, wanted in zip(is_open, shape, described)
    )


def exact_values(numpy, dtype, shape, data, name):
    """Return the array with these bytes. Raises `ValueError` if there are more or fewer."""
    count = 1
    for size in shape:
        count *= size
    needed = count * numpy.dtype(dtype).itemsize
    if len(data) != needed:
        words = "the exact values of the input %r have %d bytes, but %s %s needs %d"
        raise ValueError(words % (name, len(data), dtype, list(shape), needed))
    read = numpy.frombuffer(data, numpy.dtype(dtype).newbyteorder("<"))
    return read.astype(dtype).reshape(shape)  # a copy, because a runtime may need an aligned array


def values(numpy, dtype, shape, described, seed):
    """Return floats in the `span`, or in [-1, 1]; or integers in the `range`.

    Floats are no denormal numbers, which are slow on many chips.
    """
    generator = numpy.random.RandomState(seed)
    if dtype.startswith("float"):
        span = described.get("span")
        drawn = generator.uniform(*(span or (-1, 1)), shape)
        if span is not None:
            drawn = numpy.where(abs(drawn) < numpy.finfo(dtype).tiny, 0.0, drawn)
        elif dtype == "float16":
            drawn = numpy.where(abs(drawn) < SMALLEST_FLOAT16, SMALLEST_FLOAT16, drawn)
    else:
        low, high = described.get("range") or DEFAULT_RANGE
        drawn = generator.randint(low, high, shape, dtype="int64")
    # numpy gives a number instead of an array without axes.
    return drawn.astype(dtype) if shape else numpy.array(drawn, dtype)
