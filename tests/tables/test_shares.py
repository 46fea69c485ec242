"""Where the predicted time of a network goes: the shares are its ops, and sum up to the prediction."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.mixed import MixedTable
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.shares import ONCE, shares_of

CIFAR = get_space("cifar-mbv3")
MIXED = MixedSpace.of(CIFAR)
REGRESSION = {
    "method": "regression",
    "coefficients": {"ms": 0.9, "ops": -0.001, "boundary": 0.01, "inside": 0.002, "parameters": 0.1},
    "constant": 0.05,
}


def table(precision: str = "fp32", **metadata: object) -> LatencyTable:
    def row(op: Op, ms: float) -> Row:
        return Row.from_op(op, batch=1, precision=precision, samples_ms=[ms] * 3)

    rows = [row(op, op.macs / 1e6 + 0.01) for op in CIFAR.unique_ops()]
    if precision == "int8":
        rows += [row(op, 0.02) for op in MIXED.boundary_ops]
    known = {"spaces": ["cifar-mbv3"], "runtime": "litert", "precision": precision, "threads": 1, "batch": 1}
    return LatencyTable(f"pi-{precision}", tuple(rows), {**known, **metadata})


@pytest.mark.parametrize("correction", [{"method": "sum"}, REGRESSION])
def test_shares_of_a_network(correction: dict[str, object]) -> None:
    found = table(correction=correction)
    rng = np.random.default_rng(0)
    for architecture in (CIFAR.sample(rng) for _ in range(5)):
        shares = shares_of(found, architecture)
        assert shares is not None
        assert sum(share.ms for share in shares) == pytest.approx(found.predict_ms([architecture])[0])
        ops = [(share.name, share.op) for share in shares if share.op is not None]
        assert ops == list(CIFAR.layout(architecture))
        assert [share.name for share in shares if share.op is None] == ([ONCE] if correction is REGRESSION else [])


def test_shares_in_mixed_precision_have_the_changes() -> None:
    found = MixedTable.of([table(), table("int8")])
    rng = np.random.default_rng(1)
    counts = []
    for architecture in MIXED.decode(MIXED.sample_genomes(rng, 12)):
        shares = shares_of(found, architecture)
        assert shares is not None
        assert sum(share.ms for share in shares) == pytest.approx(found.predict_ms([architecture])[0])
        precisions = list(MIXED.precisions(architecture).items())
        expected = [
            f"to {after} after {name}" for (name, before), (_, after) in pairwise(precisions) if before != after
        ]
        assert [share.name for share in shares if share.op is None] == expected
        counts.append(len(expected))
    assert max(counts) > 1
