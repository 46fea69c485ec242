"""`ofa-verify`: compare the predictions of a latency table with measurements of whole networks."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.base.files import write_text
from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.cli.lending import lending_of
from ofa_profiler.cli.options import (
    Parser,
    add_device_options,
    device_options,
    positive_integer,
    space_words,
    whole_number,
)
from ofa_profiler.cli.report import refresh_report
from ofa_profiler.cli.terminal import progress_bar, run_command, say
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.target import BYTES_PER_NUMBER, MIXED
from ofa_profiler.spaces import get_space
from ofa_profiler.verification.doubts import other_conditions, verification_doubts
from ofa_profiler.verification.plot import NOT_INSTALLED, can_plot, check_plot_path, direction, plot_verification
from ofa_profiler.verification.result import DEFAULT_SUBNETS, Subnet, Verification

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ofa_profiler.tables.mixed import AnyTable

PROG = "ofa-verify"

_DESCRIPTION = """\
Draw random networks over the latency range of the table's search space. Measure them on the device with the
settings of the table, and compare with the predictions of the table. The summary goes to `validation` in the
table's JSON, the numbers to NAME-verify.json, the plot to NAME-verify.png. After an interruption, run the same
command again: it resumes.
"""

_EXAMPLES = """\
examples:
  ofa-verify --lut latency_tables/NAME.csv --device local
  ofa-verify --lut latency_tables/NAME.csv --device local --subnets 100 --seed 1 --json > verify.json
  ofa-verify --lut latency_tables/NAME.csv --device local --calibrate 32     correct the table again
  ofa-verify --lut latency_tables/NAME.csv --device local --keep-models models    keep the model files
  ofa-verify --lut latency_tables/NAME.csv --device local --architecture found.json     measure given networks
  ofa-verify --lut FP32.csv --lut INT8.csv --precision mixed --device local     networks in mixed precision

exit codes: 0 done, 2 bad usage or bad input, 4 the device or most networks failed, 130 or 143 interrupted
"""


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "--lut",
        metavar="CSV",
        type=Path,
        action="append",
        required=True,
        help="the latency table; for mixed precision, the tables of fp32 and int8",
    )
    parser.add_argument(
        "--precision",
        choices=(*BYTES_PER_NUMBER, MIXED),
        help="precision of the networks: that of the table, or mixed with two tables (default: as many tables say)",
    )
    parser.add_argument("--device", metavar="DEVICE", required=True, help="device to measure on, as in ofa-profile")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--subnets",
        metavar="N",
        type=positive_integer,
        default=DEFAULT_SUBNETS,
        help="number of networks (default: %(default)s)",
    )
    which.add_argument(
        "--architecture",
        metavar="FILE.json",
        type=Path,
        nargs="+",
        help="measure these networks instead of random ones: architecture files, or the search.json of ofa-search",
    )
    parser.add_argument(
        "--calibrate",
        metavar="N",
        type=positive_integer,
        help="fit the latency model of the table again, to N more networks that are measured in the same session",
    )
    parser.add_argument(
        "--seed", metavar="S", type=whole_number, default=0, help="random seed of the networks (default: %(default)s)"
    )
    parser.add_argument(
        "--space", metavar="NAME", help=f"the space to verify, if the table has several: {space_words()}"
    )
    parser.add_argument(
        "--time-limit",
        metavar="T",
        default="5m",
        help="stop refining the medians after T (default: %(default)s)",
    )
    parser.add_argument("--keep-models", metavar="DIR", type=Path, help="write the measured models to DIR")
    parser.add_argument("--plot", metavar="PATH", type=Path, help="file for the plot (default: NAME-verify.png)")
    parser.add_argument("--fresh", action="store_true", help="discard the results of an interrupted run")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    add_device_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""
    kept = "interrupted"

    def command() -> int:
        nonlocal kept
        arguments = _parser().parse_args(argv)
        time_limit_s = parse_duration_ms(arguments.time_limit, "--time-limit") / 1e3
        space = get_space(arguments.space) if arguments.space is not None else None
        architectures = None
        if arguments.architecture is not None:
            files = (Architecture.load_all(path, arguments.space) for path in arguments.architecture)
            architectures = [network for networks in files for network in networks]
        if arguments.calibrate and (arguments.architecture or arguments.keep_models):
            raise UsageError("--calibrate measures networks that it draws, and keeps no models")
        if arguments.plot is not None:
            check_plot_path(arguments.plot)
        from ofa_profiler.devices import open_device
        from ofa_profiler.tables.mixed import MixedTable
        from ofa_profiler.verification.calibrate import Calibration, recalibrate
        from ofa_profiler.verification.conditions import settings_of
        from ofa_profiler.verification.mixed import MixedCalibration, calibrate_mixed
        from ofa_profiler.verification.verify import store_validation, verify

        table = _load(arguments)
        options = device_options(arguments, settings_of(table), table)
        journal = _beside(table, ".jsonl")
        lending = lending_of(arguments)
        with lending.lent(open_device(arguments.device, options)) as device, progress_bar() as reporter:
            kept = "interrupted; the results so far are kept; run the same command again to resume"
            how = {"seed": arguments.seed, "space": space, "time_limit_s": time_limit_s, "progress": reporter}
            if arguments.calibrate:
                counts = {"fitted": arguments.calibrate, "validated": arguments.subnets}
                calibration: Calibration | MixedCalibration
                if isinstance(table, MixedTable):
                    del how["space"]
                    calibration = calibrate_mixed(table, device, fresh=True, **counts, **how)
                else:
                    calibration = recalibrate(table, device, **counts, **how)
                _report(arguments, calibration.table, calibration.verification, stored=True)
                return lending.exit_code(0)
            verification = verify(
                table,
                device,
                subnets=arguments.subnets,
                architectures=architectures,
                keep_models=arguments.keep_models,
                journal=journal,
                fresh=arguments.fresh,
                **how,
            )
        stored = architectures is None and store_validation(table, verification)
        if stored:
            table = _load(arguments)
        _report(arguments, table, verification, stored=stored, verified=verification.subnets)
        journal.unlink(missing_ok=True)
        return lending.exit_code(0)

    return run_command(PROG, command, interrupted=lambda: kept)


def _load(arguments: argparse.Namespace) -> AnyTable:
    """The table, or both tables as one. Raises `UsageError` and `InputFileError`."""
    from ofa_profiler.tables.consistency import check_of_space
    from ofa_profiler.tables.mixed import MixedTable
    from ofa_profiler.tables.table import LatencyTable

    tables = [LatencyTable.load(path) for path in arguments.lut]
    for table in tables:
        check_of_space(table.path or table.name, table.metadata)
    if arguments.precision == MIXED or len(tables) > 1:
        if arguments.precision not in (None, MIXED):
            raise UsageError(f"--precision {arguments.precision}: {len(tables)} --lut; one table has one precision")
        return MixedTable.of(tables)
    (table,) = tables
    found = table.metadata.get("precision") or table.rows[0].precision
    if arguments.precision not in (None, found):
        raise UsageError(f"--precision {arguments.precision}: table {table.name} is {found}")
    return table


def _beside(table: AnyTable, ending: str) -> Path:
    """NAME-verify.* beside NAME.csv; for mixed precision, NAME-mixed-verify.* beside the int8 table."""
    from ofa_profiler.tables.mixed import MixedTable

    assert table.path is not None
    which = "-mixed" if isinstance(table, MixedTable) else ""
    return table.path.with_name(f"{table.path.stem}{which}-verify{ending}")


def _plain_ms(table: AnyTable, verification: Verification) -> NDArray[np.float64] | None:
    """The plain sums of the networks; None if they are what the table predicts, or unknown."""
    from ofa_profiler.tables.corrections import Sum
    from ofa_profiler.tables.mixed import MixedTable
    from ofa_profiler.verification.calibrate import plain_sum

    if isinstance(table, MixedTable) or table.correction.method == Sum.method:
        return None
    return plain_sum(table).predict_ms([subnet.architecture for subnet in verification.usable])


def _report(
    arguments: argparse.Namespace,
    table: AnyTable,
    verification: Verification,
    *,
    stored: bool,
    verified: Sequence[Subnet] = (),
) -> None:
    """Write numbers and plot beside the table, a summary to stderr and, with `--json`, the document to stdout.

    `verified` are networks for the report of the table that its journal of networks does not hold.
    """
    from ofa_profiler.tables.table import LatencyTable

    document = json.dumps(verification.to_json(), indent=2, allow_nan=False)
    numbers = _beside(table, ".json")
    write_text(numbers, document + "\n")
    written = [str(numbers)]
    if arguments.plot is not None or can_plot():
        plot = arguments.plot or _beside(table, ".png")
        plot_verification(verification, plot, title=table.name, plain_ms=_plain_ms(table, verification))
        written.append(str(plot))
    else:
        say(f"note: {NOT_INSTALLED}")
    if stored and isinstance(table, LatencyTable) and (page := refresh_report(table, verified)):
        written.append(page)
    if not isinstance(table, LatencyTable) and table.unfitted:
        say(f"warning: {table.unfitted}")
    for doubt in verification_doubts(table, verification):
        say(str(doubt))
    v = verification
    say(f"{table.name}: {len(v.usable)} networks of {min(v.measured_ms):.3g} to {max(v.measured_ms):.3g} ms")
    say(f"  predicted / measured   {v.ratio:.3f} (geometric mean): {direction(v)}")
    say(f"  mean error             {v.mape:.1%}, noise of the measurement {v.spell('noise')}")
    say(f"  within 3%, 5%, 10%     {v.within_3pct:.0%}, {v.within_5pct:.0%}, {v.within_10pct:.0%}")
    say(f"  inside the 95% interval {v.spell('coverage', '.0%')}")
    say(f"  rank correlation       {v.spell('spearman', '.3f')} (Spearman)")
    why = "the networks were given" if arguments.architecture else other_conditions(table, v.device)
    say(f"written: {', '.join(written)}" + ("" if stored else f"; not added to the table: {why or 'it is not a file'}"))
    if arguments.json:
        print(document)


if __name__ == "__main__":
    sys.exit(leave(main()))
