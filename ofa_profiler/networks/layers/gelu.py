"""GELU."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.base import SameShape


@dataclass(frozen=True)
class Gelu(SameShape):
    """x * Phi(x), where Phi is the standard normal CDF, computed by the error function (arXiv 1606.08415)."""
