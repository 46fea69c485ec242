"""Ops, layers, graphs, architectures and their parameters. Only `torch_modules` imports torch."""

from ofa_profiler.networks import blocks  # noqa: F401 - registers the layers of the built-in kinds of ops
