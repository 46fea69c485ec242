"""The input data of models. It follows from the descriptions in the kit, with the same values every time.

A description is a dict: `name` (null: by position), `dtype` by its name in numpy (null: that of the model), `shape`,
for integers `range`: the smallest value, and the largest value plus 1, and for floats `span`: the smallest and the
largest value. With `values`, a file of the kit has the exact values.
"""

import os

from .verified import verified

DEFAULT_RANGE = [0, 2]  # valid as an index into almost any table
LEGACY_RANGE = [0, 127]
DEFAULT_SPAN = [-1, 1]
SMALLEST_FLOAT16, SMALLEST_FLOAT32 = 2.0**-14, 2.0**-126  # the smallest normal numbers


def descriptions(entry):
    """Return the inputs of a model from its entry in the manifest. Old manifests have the shape of a single input."""
    if "inputs" in entry:
        return entry["inputs"]
    return [{"name": None, "dtype": None, "shape": entry["input_shape"], "range": LEGACY_RANGE}]


def arrays(numpy, described, found):
    """Return an array for each input of a model, in the order of `found`: its (name, dtype, shape) in the model.

    Raises `ValueError` if they differ from the inputs that the kit describes.
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
    if not fits(shape, expected["shape"]) or expected["dtype"] not in (None, dtype):
        wanted = "%s %s" % (expected["dtype"] or dtype, list(expected["shape"]))
        words = "the input %r of the model is %s %s, but the kit describes %s"
        raise ValueError(words % (name, dtype, list(shape), wanted))
    if expected.get("values"):
        return exact(numpy, dtype, list(expected["shape"]), expected["values"])
    return values(numpy, dtype, list(expected["shape"]), expected, number)


def fits(shape, described):
    """Return whether a shape in a model, whose open dimensions are no positive numbers, has the described sizes."""
    if len(shape) != len(described):
        return False
    return all(size == wanted for size, wanted in zip(shape, described) if isinstance(size, int) and size > 0)


def exact(numpy, dtype, shape, path):
    """Return the values in a file, which is named by its hash. Raises `Damaged`."""
    data = verified(path, os.path.basename(path).partition(".")[0])
    return numpy.frombuffer(data, numpy.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)


def values(numpy, dtype, shape, described, seed):
    """Return floats in their span, [-1, 1] without one; or integers in their range.

    Floats are no denormal numbers, which are slow on many chips.
    """
    generator = numpy.random.RandomState(seed)
    if dtype.startswith("float"):
        low, high = described.get("span") or DEFAULT_SPAN
        drawn = numpy.asarray(generator.uniform(low, high, shape))
        smallest = SMALLEST_FLOAT16 if dtype == "float16" else SMALLEST_FLOAT32
        return numpy.where(abs(drawn) < smallest, smallest, drawn).astype(dtype)
    limits = described.get("range") or DEFAULT_RANGE
    return numpy.asarray(generator.randint(limits[0], limits[1], shape, dtype="int64")).astype(dtype)
