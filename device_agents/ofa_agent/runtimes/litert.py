"""LiteRT, or its predecessor tflite_runtime, with XNNPACK, the default on most systems."""

import importlib
import os

from .. import copies
from ..errors import Fatal
from ..inputs import arrays
from ..reading import one_line


class Runtime:
    """The runtime `litert`."""

    weight_bytes = 0
    PACKAGES = ("ai_edge_litert", "tflite_runtime")

    def __init__(self, settings, spare_core):  # noqa: ARG002 (its threads always spin)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        package = self.find()
        self.threads = settings["threads"]
        # Tables from Google's benchmark_model have the provider "default".
        self.provider = "XNNPACK" if settings["provider"] in (None, "default") else settings["provider"]
        self.options = {}
        if self.provider == "CPU":
            self.options["experimental_op_resolver_type"] = self.litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        elif self.provider != "XNNPACK":
            words = "litert has no provider %r on this device; choose from XNNPACK, CPU (without XNNPACK)"
            raise Fatal(words % self.provider, usage=True)
        version = package.__version__
        if package.__name__ != self.PACKAGES[0]:
            version = "%s %s" % (package.__name__, version)
        options = {"num_threads": self.threads, "delegate": "none" if self.provider == "CPU" else "XNNPACK"}
        self.info = {"name": "litert", "version": version, "provider": self.provider, "options": options}

    def find(self):
        """Import the first installed package and return it. Raises `Fatal`."""
        self.numpy = importlib.import_module("numpy")
        problems = []
        for name in self.PACKAGES:
            try:
                self.litert = importlib.import_module(name + ".interpreter")
                return importlib.import_module(name)
            except Exception as error:  # noqa: PERF203
                # A package that is installed and does not load matters more than one that is not installed.
                if not (isinstance(error, ImportError) and error.name == name):
                    problems.append(error)
        if len(problems) == 1:
            raise problems[0]
        absent = "no package ai-edge-litert (or tflite-runtime, for Python up to 3.11) is installed"
        raise ImportError("; ".join(map(one_line, problems)) or absent)

    def load(self, model, inputs):
        """Return a function that runs the model once. `inputs` are the descriptions of its inputs."""
        count = copies.of_weights(self.weight_bytes, len(model))
        return copies.in_turns([self._prepared(model, inputs).invoke for _ in range(count)])

    def _prepared(self, model, inputs):
        interpreter = self.litert.Interpreter(model_content=model, num_threads=self.threads, **self.options)
        values = interpreter.get_input_details()
        found = [(value.get("name"), self.numpy.dtype(value["dtype"]).name, declared_shape(value)) for value in values]
        given = arrays(self.numpy, inputs, found)
        for value, array in zip(values, given):
            if list(value["shape"]) != list(array.shape):
                interpreter.resize_tensor_input(value["index"], array.shape)
        interpreter.allocate_tensors()
        # Without a message, other kernels run the operators that the provider does not support.
        names = [node["op_name"] for node in interpreter._get_ops_details()]
        if self.provider == "XNNPACK" and "DELEGATE" not in names:
            raise ValueError("XNNPACK does not run this model on this device; use --provider CPU")
        for value, array in zip(values, given):
            interpreter.set_tensor(value["index"], array)
        return interpreter


def declared_shape(value):
    """Return the shape of an input as the model declares it, with -1 for open sizes."""
    signature = value.get("shape_signature")
    return [int(size) for size in (value["shape"] if signature is None or not len(signature) else signature)]
