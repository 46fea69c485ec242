"""Measures the speed of reading tables and evaluating costs: `python benchmarks/tables.py [TABLE]`.

TABLE is a CSV or a folder of published tables; the default is a table with made-up times.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.tables.table import Row


def best_of(repeats: int, action: Callable[[], object]) -> float:
    """Return the shortest time of `repeats` runs, in seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def made_up(folder: Path) -> Path:
    """Write a table of `ofa-mbv3-w1.2` with random times at its five resolutions."""
    rng = np.random.default_rng(0)
    ops = get_space("ofa-mbv3-w1.2").unique_ops()
    rows = tuple(Row.from_op(op, batch=1, precision="fp32", samples_ms=rng.uniform(0.1, 2, 20)) for op in ops)
    LatencyTable("made-up", rows).save(folder / "made-up.csv")
    return folder / "made-up.csv"


def main() -> None:
    """Run the benchmark and print its figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else made_up(Path(folder))
        table = LatencyTable.load(path)
        print(f"read {path.name} ({len(table.rows)} rows): {best_of(5, lambda: LatencyTable.load(path)) * 1e3:.0f} ms")
        space = get_space(table.spaces[0])
        space = space.with_resolutions(table.resolutions(space))
        build_s = best_of(3, lambda: LatencyTable.load(path).cost(space)) - best_of(3, lambda: LatencyTable.load(path))
    cost = table.cost(space)
    print(f"cost of {space.name} at {len(space.resolutions)} resolutions: {build_s * 1e3:.0f} ms")
    genomes = space.sample_genomes(np.random.default_rng(0), 1_000_000)
    for count in (1_000, 1_000_000):
        seconds = best_of(5, lambda: cost.evaluate(genomes[:count]))  # noqa: B023 - called at once
        print(f"evaluate {count} genomes: {count / seconds / 1e6:.1f} M genomes/s")
    print(f"exact minimum: {best_of(5, cost.minimum) * 1e3:.1f} ms, maximum: {best_of(5, cost.maximum) * 1e3:.1f} ms")
    chosen = space.decode(genomes[:1_000])
    print(f"predict_ms: {1_000 / best_of(3, lambda: table.predict_ms(chosen)):.0f} architectures/s")


if __name__ == "__main__":
    main()
