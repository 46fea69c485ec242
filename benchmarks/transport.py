#!/usr/bin/env python3
"""Measures the overhead of ssh: the share of a table's wall time in which the device measures, on loopback.

    python benchmarks/transport.py [--space cifar-mbv3] [--resolution 24] [--time-limit 10m]

Starts its own OpenSSH server (Debian: apt-get install openssh-server) and profiles this machine through it with the
`ofa-profile` command: first with an empty device, so that the runtime and all models are sent, then again. The last
line is the same table without a transport. The ops are exported before.

"Measuring" is running models, warm-up included. "Visits" also include the agent's work for them: reading and loading
a model, recording its times. The remaining time is the host, the transport, program starts, and waiting for a device
that drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.sshd import Me, Sshd  # the same server that the tests start


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description="The share of a table's wall time in which the device measures, over ssh."
    )
    parser.add_argument("--space", default="cifar-mbv3")
    parser.add_argument("--resolution", default="24,28,32")
    parser.add_argument("--time-limit", default="10m")
    arguments = parser.parse_args()
    what = ["--space", arguments.space, "--resolution", arguments.resolution, "--time-limit", arguments.time_limit]
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Sshd(folder / "board").start()
        try:
            Me(folder / "me", server)
            env = {**os.environ, "HOME": str(folder / "me"), "XDG_CACHE_HOME": cache}
            subprocess.run(
                [sys.executable, "-m", "ofa_profiler.cli.profile", "--kit", str(folder / "kit"), *what],
                env=env,
                check=True,
            )
            ssh = f"ssh:127.0.0.1:{server.port}"
            for title, device in (("ssh, first time", ssh), ("ssh, again", ssh), ("local", "local")):
                print(f"{title:18}{profile(device, folder / 'out', what, env)}", flush=True)
        finally:
            server.stop()
    return 0


def profile(device: str, out: Path, what: list[str], env: dict[str, str]) -> str:
    """Make a new table. Return its wall time and the shares of it, as a line of text."""
    command = [
        sys.executable,
        "-m",
        "ofa_profiler.cli.profile",
        "--device",
        device,
        "--out",
        str(out),
        "--name",
        "table",
    ]
    begin = time.perf_counter()
    done = subprocess.run([*command, *what, "--json", "--fresh"], stdout=subprocess.PIPE, env=env, check=True)
    wall_s = time.perf_counter() - begin
    report = json.loads(done.stdout)
    records = map(json.loads, (out / "table.jsonl").read_text(encoding="utf-8").splitlines())
    visits_s = sum(record.get("seconds", 0.0) for record in records)
    shares = f"measuring {report['measuring_seconds'] / wall_s:.1%}, visits {visits_s / wall_s:.1%}"
    return f"{report['ops']} ops, {report['visits']} visits, wall {wall_s:.1f} s, {shares}"


if __name__ == "__main__":
    sys.exit(main())
