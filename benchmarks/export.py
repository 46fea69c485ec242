"""Measures the time to export the ops of a space, cold and from the cache, and the size of a kit.

    python benchmarks/export.py [--runtime litert] [--space ofa-mbv3-w1.2] [--resolution 160,176,192,208,224]

The limit for `ofa-mbv3-w1.2` at its five resolutions is 60 s cold on two cores.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from pathlib import Path

from ofa_profiler import get_space
from ofa_profiler.export import Model, export_ops
from ofa_profiler.protocol.target import Target

COLD_LIMIT_S = 60


def timed_export(ops, runtime: str, cache_dir: Path) -> tuple[list[Model], float]:
    """Export `ops`, and return the models and the time in seconds."""
    start = time.perf_counter()
    models = export_ops(ops, target=Target(runtime), cache_dir=cache_dir)
    return models, time.perf_counter() - start


def kit_bytes(models: list[Model], path: Path) -> int:
    """Return the size of a tar.gz of the models, like that of a sent kit."""
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        for model in models:
            archive.add(model.path, model.path.name)
    return path.stat().st_size


def main() -> None:
    """Export twice to a new folder and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="ofa-mbv3-w1.2")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--resolution", help="comma-separated list of pixels; default: those of the space")
    arguments = parser.parse_args()
    space = get_space(arguments.space)
    resolutions = [int(r) for r in arguments.resolution.split(",")] if arguments.resolution else space.resolutions
    ops = space.unique_ops(resolutions)
    with tempfile.TemporaryDirectory() as folder:
        models, cold_s = timed_export(ops, arguments.runtime, Path(folder))
        again, warm_s = timed_export(ops, arguments.runtime, Path(folder))
        if again != models:
            raise SystemExit("the models from the cache differ")
        total = sum(model.path.stat().st_size for model in models)
        compressed = kit_bytes(models, Path(folder) / "kit.tar.gz")
    print(f"{space.name} for {arguments.runtime} at {', '.join(map(str, resolutions))}: {len(ops)} ops")
    print(f"cold       {cold_s:8.2f} s   (limit for five resolutions: {COLD_LIMIT_S} s)")
    print(f"warm       {warm_s:8.2f} s   (every file verified by its SHA-256)")
    print(f"models     {total / 1e6:8.1f} MB")
    print(f"as tar.gz  {compressed / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
