"""The data that a model is given: by the kit's description of its inputs, the same values every time.

A description is a dict: `name` (null: by position), `dtype` as numpy names it (null: the model's), `shape`, and for
integers `range`: the lowest value and the one after the highest.
"""

DEFAULT_RANGE = [0, 2]  # valid as an index of almost everything
LEGACY_RANGE = [0, 127]
SMALLEST_FLOAT16 = 2.0**-14  # of those that are not denormal


def descriptions(entry):
    """The inputs of a model by its entry in the manifest; earlier manifests give the shape of the only one."""
    if "inputs" in entry:
        return entry["inputs"]
    return [{"name": None, "dtype": None, "shape": entry["input_shape"], "range": LEGACY_RANGE}]


def arrays(numpy, described, found):
    """An array for each input of a model -> a list in the order of `found`, the model's (name, dtype, shape).

    Raises `ValueError` when the model does not have the inputs that the kit describes.
    """
    if len(found) != len(described):
        names = ", ".join(str(name) for name, _, _ in found)
        raise ValueError("the model has %d inputs (%s), the kit says %d" % (len(found), names, len(described)))
    return [_array(numpy, described, position, *one) for position, one in enumerate(found)]


def _array(numpy, described, position, name, dtype, shape):
    matches = [number for number, other in enumerate(described) if other["name"] == name and name is not None]
    number = matches[0] if matches else position
    expected = described[number]
    if expected["name"] not in (None, name):
        names = ", ".join(str(other["name"]) for other in described)
        raise ValueError("the model has an input %r, the kit says %s" % (name, names))
    if list(shape) != list(expected["shape"]) or expected["dtype"] not in (None, dtype):
        wanted = "%s %s" % (expected["dtype"] or dtype, list(expected["shape"]))
        raise ValueError("the model's input %r is %s %s, the kit says %s" % (name, dtype, list(shape), wanted))
    return values(numpy, dtype, list(shape), expected.get("range") or DEFAULT_RANGE, number)


def values(numpy, dtype, shape, limits, seed):
    """Floats in [-1, 1], none of them denormal (those are slow on many chips); integers within `limits`."""
    generator = numpy.random.RandomState(seed)
    if dtype.startswith("float"):
        drawn = generator.uniform(-1, 1, shape)
        if dtype == "float16":
            drawn = numpy.where(abs(drawn) < SMALLEST_FLOAT16, SMALLEST_FLOAT16, drawn)
        return drawn.astype(dtype)
    return generator.randint(limits[0], limits[1], shape, dtype="int64").astype(dtype)
