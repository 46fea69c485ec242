"""Error of inferred ops against the share of ops measured: `python benchmarks/like.py --pair BASE.csv NEW.csv ...`.

Both tables are complete, so the truth is known and no device is needed. BASE is the similar device. Of NEW, a share of
the ops is taken as measured, in the order of `ofa-profile --like`, and the others are inferred. Rivals get the same
ops: one factor, a factor per kind of op, and ridge regression on the same features.

If the journal of networks is beside NEW, 16 of its networks in 4 rounds fit the correction, and the error of all others
is shown. With the journal of the ops, it shows the seconds on the device: these ops, trials of forms, and 26 networks
in 4 rounds. For 100%, these are all networks and all rounds of the journals.

A pair that is in the file `--out` with the same shares is not computed again. BASE and NEW can be published tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.files import write_text
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.corrections.regression import network_features, ridge
from ofa_profiler.tables.transfer import Base, infer
from ofa_profiler.tables.transfer.features import op_features
from ofa_profiler.tables.transfer.process import Kernel, Process
from ofa_profiler.verification import agreement
from ofa_profiler.verification.calibrate import drawn_networks, networks_journal, read_networks
from ofa_profiler.verification.like import FEW_NETWORKS, order_for
from ofa_profiler.verification.networks import network_name

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: Of the networks of `ofa-profile --like` on a quiet device.
_ROUNDS = FEW_NETWORKS.sampling["min_rounds"]
_COLUMNS = (
    "ops measured",
    "device seconds",
    "median error: one factor",
    "per kind",
    "ridge",
    "process",
    "process: 90% below",
    "inside the 80% interval",
    "networks, MAPE: one factor",
    "per kind",
    "ridge",
    "process",
    "process: within 10%",
    "Spearman",
)
#: The strengths of the ridge: variances of the weights, and of single values.
_RIDGE = [Kernel(linear, 1e-12, 1.0, noise) for linear in (0.0003, 0.003, 0.03, 0.3) for noise in (1e-4, 1e-3, 1e-2)]

Networks = list[tuple[Architecture, float]]


def space_of(table: LatencyTable, other: LatencyTable) -> SearchSpace:
    """The space that both tables have, at the resolutions that both cover."""
    name = next(name for name in table.spaces if name in other.spaces)
    space = get_space(name)
    both = [r for r in table.resolutions(space) if r in other.resolutions(space)]
    return space.with_resolutions(both)


def networks_of(table: LatencyTable, space: SearchSpace, *, whole: bool) -> tuple[Networks, Networks]:
    """The networks for the fit in few rounds, and all others in all rounds; empty without a journal.

    `whole`: as many for the fit, and in as many rounds, as there are in the journal.
    """
    assert table.path is not None
    journal = networks_journal(table.path)
    replay = read_networks(journal)
    if replay is None:
        return [], []
    draw, found = drawn_networks(replay, journal), replay.measurements()
    usable = [a for a in draw.all if a.resolution in space.resolutions and found[network_name(a)].ok]
    fitted = [a for a in usable if a in draw.fitted]
    few = [fitted[i] for i in sorted(set(np.linspace(0, len(fitted) - 1, FEW_NETWORKS.fitted).round().astype(int)))]
    few = fitted if whole else few
    others = [a for a in usable if a not in few]
    rounds = None if whole else _ROUNDS
    short = steady_times(replace(m, rounds_ms=m.rounds_ms[:rounds]) for m in found.values())
    times = steady_times(found.values())
    return [(a, short[network_name(a)].ms) for a in few], [(a, times[network_name(a)].ms) for a in others]


def seconds_of(table: LatencyTable, ops: Sequence[Op], *, whole: bool) -> float | None:
    """The seconds on the device of these ops, the trials of forms and the networks; None without the journals.

    `whole`: all networks in all rounds, else those of `ofa-profile --like`.
    """
    assert table.path is not None
    replay, networks = read_networks(table.path.with_suffix(".jsonl")), read_networks(networks_journal(table.path))
    if replay is None or networks is None:
        return None
    seconds = sum(visit.seconds for op in ops for visit in replay.visits[op.key])
    seconds += float(replay.trials.json["seconds"]) if replay.trials is not None else 0.0
    if whole:
        return seconds + networks.used_s
    visits = [visits[:_ROUNDS] for visits in networks.visits.values()]
    a_network_s = sum(visit.seconds for found in visits for visit in found) / len(visits)
    return seconds + (FEW_NETWORKS.fitted + FEW_NETWORKS.validated) * a_network_s


def rivals(
    ops: Sequence[Op], base_ms: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Simpler ways to infer the other ops -> their times."""
    rest = [op for op in ops if op.key not in measured]
    logs = {op.key: float(np.log(measured[op.key] / base_ms[op.key])) for op in ops if op.key in measured}
    common = float(np.median(list(logs.values())))
    kinds: dict[str, list[float]] = {}
    for op in ops:
        if op.key in logs:
            kinds.setdefault(op.kind, []).append(logs[op.key])
    of_kind = {kind: float(np.median(values)) for kind, values in kinds.items()}
    features = op_features(ops, [base_ms[op.key] for op in ops])
    known = np.array([op.key in logs for op in ops])
    values = np.array([logs[op.key] for op in ops if op.key in logs])
    linear = max((Process(kernel, features[known], values) for kernel in _RIDGE), key=Process.log_likelihood)
    means = linear.predict(features[~known])[0] if rest else []
    return {
        "one factor": {op.key: base_ms[op.key] * float(np.exp(common)) for op in rest},
        "per kind": {op.key: base_ms[op.key] * float(np.exp(of_kind.get(op.kind, common))) for op in rest},
        "ridge": {op.key: base_ms[op.key] * float(np.exp(mean)) for op, mean in zip(rest, means, strict=True)},
    }


def errors(inferred: Mapping[str, float], truth: Mapping[str, float]) -> NDArray[np.float64]:
    """The relative errors of inferred times."""
    return np.array([abs(ms / truth[key] - 1) for key, ms in inferred.items()])


def predicted(op_ms: Mapping[str, float], fitted: Networks, others: Networks) -> NDArray[np.float64]:
    """Fit the correction to networks -> its predictions for others, (N,) milliseconds."""

    def time_of(_: int | None, op: Op) -> float:
        return op_ms[op.key]

    weights, _ = ridge(network_features([a for a, _ in fitted], time_of), np.array([ms for _, ms in fitted]))
    return network_features([a for a, _ in others], time_of) @ weights


def run_pair(old: LatencyTable, new: LatencyTable, shares: Sequence[float]) -> list[list[str]]:
    """The rows of a pair of tables, one per share."""
    space = space_of(old, new)
    base, truth = Base.of(old, space), Base.of(new, space).ms
    runtime = new.metadata.get("runtime") or "litert"  # published tables do not name it
    ops = [op for op in order_for(space, Settings(Target(runtime)), base).ops if op.key in truth and op.key in base.ms]
    rows = []
    for share in shares:
        fitted, others = networks_of(new, space, whole=share == 1)
        count = max(2, round(share * len(ops)))
        measured = {op.key: truth[op.key] for op in ops[:count]}
        inference = infer(ops, base.ms, measured)
        inferred = {key: ms for key, (ms, _, _) in inference.ms.items()}
        ways = [*rivals(ops, base.ms, measured).values(), inferred]
        seconds = seconds_of(new, ops[:count], whole=share == 1)
        cells = [f"{count} ({share:.0%})", "-" if seconds is None else f"{seconds:.0f}"]
        if inferred:
            off = [errors(ms, truth) for ms in ways]
            inside = np.mean([low <= truth[key] <= high for key, (_, low, high) in inference.ms.items()])
            cells += [f"{np.median(found):.1%}" for found in off]
            cells += [f"{np.quantile(off[-1], 0.9):.1%}", f"{inside:.0%}"]
        else:
            cells += ["-"] * 6
        if others and all(op.key in truth for op in space.unique_ops()):
            known_ms = [ms for _, ms in others]
            found_ms = [predicted({**measured, **ms}, fitted, others) for ms in ways]
            cells += [f"{agreement.mape(ms, known_ms):.1%}" for ms in found_ms]
            cells += [f"{agreement.within(found_ms[-1], known_ms, 0.1):.0%}"]
            cells += [f"{agreement.spearman(found_ms[-1], known_ms):.3f}"]
        else:
            cells += ["-"] * 6
        rows.append(cells)
    return rows


def main() -> None:
    """Compute and print all pairs."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--pair", nargs=2, type=Path, action="append", required=True, metavar=("BASE", "NEW"))
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--out", type=Path, help="file with the results so far")
    arguments = parser.parse_args()
    done = json.loads(arguments.out.read_text()) if arguments.out is not None and arguments.out.exists() else {}
    print("| base -> new | " + " | ".join(_COLUMNS) + " |")
    print("| --- " * (len(_COLUMNS) + 1) + "|")
    for old, new in arguments.pair:
        name = f"{old.stem} -> {new.stem}"
        key = f"{name} {','.join(map(str, arguments.shares))}"
        if key not in done:
            done[key] = run_pair(LatencyTable.load(old), LatencyTable.load(new), arguments.shares)
            if arguments.out is not None:
                write_text(arguments.out, json.dumps(done, indent=1) + "\n")
        for cells in done[key]:
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
