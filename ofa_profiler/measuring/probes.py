"""Probes: ops whose only purpose is to show the most that a device does. They are measured like all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.roofline import work_of

#: Begins the keys of probes, so that they differ from those of ops in tables.
_PREFIX = "probe "
#: Weights of 16 MB in fp32: more than the caches of a core hold.
_MEMORY = block_op("classifier", (1, 1, 2048), (2048,))
_PROBES = (
    # Large dense convolutions, 3x3 and 1x1: MACs.
    block_op("conv", (28, 28, 128), (28, 28, 128), kernel_size=3),
    block_op("conv", (14, 14, 512), (14, 14, 512)),
    # Matrix times vector, weights of 0.25 MB to 16 MB, and a pooling that reads 0.8 MB: bytes.
    block_op("classifier", (1, 1, 256), (256,)),
    block_op("classifier", (1, 1, 512), (512,)),
    block_op("classifier", (1, 1, 1024), (1024,)),
    _MEMORY,
    block_op("pool", (56, 56, 64), (1, 1, 64)),
)


def probe_ops() -> tuple[Op, ...]:
    """The probes."""
    return tuple(replace(op, key=f"{_PREFIX}{op.key}") for op in _PROBES)


def peaks_of(probes: Iterable[Op], found: Mapping[str, Measurement], target: Target) -> dict[str, Any] | None:
    """The `peaks` of a table's JSON, from the probes that were measured; None if there are too few.

    `gmacs_per_s` and `gbytes_per_s` are the best of all probes, `memory_gbytes_per_s` is that of the largest one.
    """
    macs, n_bytes, memory, probes_ms = 0.0, 0.0, None, {}
    for op in probes:
        measured, work = found.get(op.key), work_of(op, target.batch, target.precision)
        if measured is None or not measured.ok or work is None:
            continue
        ms = probes_ms[op.key] = measured.median_ms
        macs, n_bytes = max(macs, work.gmacs_per_s(ms)), max(n_bytes, work.gbytes_per_s(ms))
        if op.key.removeprefix(_PREFIX) == _MEMORY.key:
            memory = work.gbytes_per_s(ms)
    if not macs or not n_bytes:
        return None
    return {"gmacs_per_s": macs, "gbytes_per_s": n_bytes, "memory_gbytes_per_s": memory, "probes_ms": probes_ms}
