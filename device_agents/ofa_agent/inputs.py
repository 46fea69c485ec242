"""The input data of models. It follows from the descriptions in the kit, with the same values every time.

A description is a dict: `name` (null: by position), `dtype` by its name in numpy (null: that of the model), `shape`,
and for integers `range`: the smallest value, and the largest value plus 1.
"""

DEFAULT_RANGE = [0, 2]  # valid as an index into almost any table
LEGACY_RANGE = [0, 127]
SMALLEST_FLOAT16 = 2.0**-14  # the smallest normal number


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
    if list(shape) != list(expected["shape"]) or expected["dtype"] not in (None, dtype):
        wanted = "%s %s" % (expected["dtype"] or dtype, list(expected["shape"]))
        words = "the input %r of the model is %s %s, but the kit describes %s"
        raise ValueError(words % (name, dtype, list(shape), wanted))
    return values(numpy, dtype, list(shape), expected.get("range") or DEFAULT_RANGE, number)


def values(numpy, dtype, shape, limits, seed):
    """Return floats in [-1, 1] without denormal numbers, which are slow on many chips; or integers within `limits`."""
    generator = numpy.random.RandomState(seed)
    if dtype.startswith("float"):
        drawn = generator.uniform(-1, 1, shape)
        if dtype == "float16":
            drawn = numpy.where(abs(drawn) < SMALLEST_FLOAT16, SMALLEST_FLOAT16, drawn)
        return drawn.astype(dtype)
    return generator.randint(limits[0], limits[1], shape, dtype="int64").astype(dtype)
