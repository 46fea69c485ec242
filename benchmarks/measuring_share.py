#!/usr/bin/env python3
"""Measures the time to make a latency table, and the share of it in which the device runs models.

    python benchmarks/measuring_share.py [--space ofa-mbv3-w1.2] [--resolution 224] [--threads 1] [--time-limit 10m]

Profiles this machine with the `ofa-profile` command, with an empty cache and an empty folder. Prints the wall time
of the command and the share of it in which the device ran models (warm-up included), with and without the export.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description="Wall time of a table, and the share of it in which the device runs models."
    )
    parser.add_argument("--space", default="ofa-mbv3-w1.2")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--resolution", help="comma-separated list of pixels; default: those of the space")
    parser.add_argument("--time-limit", default="10m")
    parser.add_argument("--keep", metavar="DIR", help="write the table here instead of a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ofa_profiler.cli.profile", "--device", "local", "--json", "--fresh"]
        command += ["--space", arguments.space, "--threads", arguments.threads, "--out", arguments.keep or folder]
        command += ["--time-limit", arguments.time_limit]
        command += ["--resolution", arguments.resolution] if arguments.resolution else []
        begin = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "XDG_CACHE_HOME": folder}, check=True)
        wall_s = time.perf_counter() - begin
    report = json.loads(done.stdout)
    measuring_s, export_s = report["measuring_seconds"], report["export_seconds"]
    print(f"space                     {arguments.space}, {report['ops']} ops, {report['failed']} failed")
    stopped = f"{report['noisy']} ops noisy, {report['cut_short']} stopped early"
    print(f"visits                    {report['visits']}, {stopped}")
    print(f"wall time                 {wall_s:.1f} s, of which export {export_s:.1f} s")
    print(f"device measuring          {measuring_s:.1f} s")
    without_export = measuring_s / (wall_s - export_s)
    print(f"share of the wall time    {measuring_s / wall_s:.1%}, without the export {without_export:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
