"""What is measured: ops, layers, graphs, architectures and their parameters. numpy only, but for `torch_modules`."""

from ofa_profiler.networks import blocks  # noqa: F401 - whoever reads an op knows the layers of our kinds
