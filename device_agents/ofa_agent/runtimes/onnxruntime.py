"""onnxruntime. Inputs and outputs are bound once, so that a run does not include copies."""

import contextlib
import functools
import os
import re
import tempfile

from .. import copies
from ..errors import Fatal
from ..inputs import arrays
from ..reading import one_line
from ..traces import kernels_of

#: What onnxruntime says of a model that is newer than itself.
TOO_NEW = (
    re.compile(r"[Oo]pset (?P<needs>\d+) is under development.*till opset (?P<knows>\d+)", re.DOTALL),
    re.compile(r"IR version: (?P<needs>\d+), max supported IR version: (?P<knows>\d+)"),
)

#: onnxruntime's name of an element type -> numpy's name
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
SAME_NAMES = ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
DTYPES.update({"tensor(%s)" % name: name for name in SAME_NAMES})


class Runtime:
    """The runtime `onnxruntime`."""

    spread_bytes = weight_bytes = 0

    def __init__(self, settings, spare_core):
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: no telemetry on the devices of users
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        import numpy
        import onnxruntime

        self.ort, self.numpy = onnxruntime, numpy
        self.provider = settings["provider"] or "CPUExecutionProvider"
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            have = ", ".join(available)
            words = "onnxruntime has no provider %r on this device; choose from %s"
            raise Fatal(words % (self.provider, have), usage=True)
        self.options = self._options(settings, spare_core)
        self.info = {
            "name": "onnxruntime",
            "version": onnxruntime.__version__,
            "provider": self.provider,
            "options": dict(self.session, **self.entries),
        }

    def _options(self, settings, spare_core):
        self.session = {
            "intra_op_num_threads": settings["threads"],
            "inter_op_num_threads": 1,
            "execution_mode": "ORT_SEQUENTIAL",
        }
        self.entries = {}
        if not spare_core:
            # Threads that spin between operators would occupy all cores.
            self.entries["session.intra_op.allow_spinning"] = "0"
        if self.provider != "CPUExecutionProvider":
            # Otherwise unsupported operators would run on the CPU without a message.
            self.entries["session.disable_cpu_ep_fallback"] = "1"
        return self._session_options()

    def _session_options(self):
        options = self.ort.SessionOptions()
        options.log_severity_level = 4
        for name, value in self.session.items():
            setattr(options, name, self.ort.ExecutionMode.ORT_SEQUENTIAL if name == "execution_mode" else value)
        for name, value in self.entries.items():
            options.add_session_config_entry(name, value)
        return options

    def load(self, model, inputs):
        """Return a function that runs the model once. `inputs` are the descriptions of its inputs."""
        count = copies.of_weights(self.weight_bytes, len(model))
        return copies.in_turns([self._bound(self._session(model, self.options), inputs) for _ in range(count)])

    @contextlib.contextmanager
    def profiling(self, model, inputs):
        """Give a function that runs the model once, and one for afterwards: the kernels of the last N runs."""
        with tempfile.TemporaryDirectory(prefix="ofa-agent-") as folder:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "trace")
            session = self._session(model, options)

            def kernels(count):
                with open(session.end_profiling(), encoding="utf-8", errors="replace") as file:
                    return kernels_of(file, count)

            try:
                yield self._bound(session, inputs), kernels
            finally:
                session.end_profiling()  # a system may not remove a file that is open

    def _session(self, model, options):
        try:
            session = self.ort.InferenceSession(model, options, providers=[self.provider])
        except Exception as error:
            too_new = explain_too_new(self.ort.__version__, one_line(error, 4000))
            if too_new is None:
                raise
            raise ValueError(too_new) from error
        if self.provider not in session.get_providers():
            raise Fatal("onnxruntime cannot load the libraries of the provider %s" % self.provider)
        return session

    def _bound(self, session, inputs):
        """Return a function that runs the model of a session once, each time on the next copy of inputs and outputs."""
        # onnxruntime gives the shape [] both to a number and to an input without a declared shape.
        found = [
            (value.name, DTYPES.get(value.type, value.type), value.shape or None) for value in session.get_inputs()
        ]
        given = arrays(self.numpy, inputs, found)
        names = [name for name, _, _ in found]
        runs = [self._binding(session, names, given)]
        if not self.spread_bytes:
            return runs[0]
        count = copies.of_tensors(self.spread_bytes, sum(map(n_bytes, runs[0].bound)))
        runs += [self._binding(session, names, [array.copy() for array in given]) for _ in range(count - 1)]
        return copies.in_turns(runs)

    def _binding(self, session, names, given):
        """Return a function that runs the model of a session once. Its `bound` are the values that it binds."""
        binding = session.io_binding()
        bound = []  # a binding does not keep references to its values
        for name, array in zip(names, given):
            bound.append(self.ort.OrtValue.ortvalue_from_numpy(array))
            binding.bind_ortvalue_input(name, bound[-1])
        for value in session.get_outputs():
            # As above: without dimensions, the shape may be unknown.
            if value.type in DTYPES and value.shape and all(isinstance(size, int) for size in value.shape):
                dtype = self.numpy.dtype(DTYPES[value.type]).type
                bound.append(self.ort.OrtValue.ortvalue_from_shape_and_type(value.shape, dtype))
                binding.bind_ortvalue_output(value.name, bound[-1])
            else:
                binding.bind_output(value.name)
        run = functools.partial(session.run_with_iobinding, binding)
        run.bound = bound
        run.given = given  # a value can share the memory of its array
        return run


def n_bytes(value):
    """Return the bytes of a tensor."""
    return value.numpy().nbytes


def explain_too_new(version, words):
    """Return what is wrong with a model that needs a newer onnxruntime; None for other errors."""
    for what, pattern in zip(("opset", "IR version"), TOO_NEW):
        found = pattern.search(words)
        if found:
            numbers = (version, what, found.group("knows"), found.group("needs"))
            return "onnxruntime %s knows %s %s, and this model needs %s: a newer onnxruntime is needed here" % numbers
    if "Unknown model file format version" in words:  # before onnxruntime 1.9
        return "onnxruntime %s does not know the IR version of this model: a newer one is needed here" % version
    return None
