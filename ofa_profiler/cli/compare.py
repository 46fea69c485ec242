"""`ofa-compare`: two or more latency tables side by side, op by op."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.cli.options import Parser
from ofa_profiler.cli.terminal import run_command, say
from ofa_profiler.errors import UsageError

if TYPE_CHECKING:
    from ofa_profiler.tables.compare import TableComparison

PROG = "ofa-compare"

_DESCRIPTION = """\
Compare latency tables with the first one, op by op. The factor that all ops share is removed: what is left are the
ops and kinds of ops that are slower or faster on one of the devices. Of two tables of one device, the command says
whether their noise explains the difference.
"""

_EXAMPLES = """\
examples:
  ofa-compare BOARD.csv PHONE.csv              where the phone is slower
  ofa-compare MONDAY.csv FRIDAY.csv            do two measurements agree
  ofa-compare OLD.csv NEW.csv --out compared   all ops in compared/compare.csv, charts in compared/compare.html

exit codes: 0 done, 2 bad usage or bad input
"""


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "tables",
        metavar="CSV",
        type=Path,
        nargs="+",
        help="latency tables, or folders of published tables; the first one is the base",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="write compare.csv, and compare.html, to DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""

    def command() -> int:
        arguments = _parser().parse_args(argv)
        if len(arguments.tables) < 2:
            raise UsageError("give two tables at least; the first one is the base")
        from ofa_profiler.tables.compare import compare
        from ofa_profiler.tables.compare_text import comparison_lines

        comparison = compare(*arguments.tables)
        written = _write(comparison, arguments.out) if arguments.out is not None else []
        for line in comparison_lines(comparison):
            say(line)
        if arguments.json:
            print(json.dumps({**comparison.to_json(), "files": written}, indent=2, allow_nan=False))
        return 0

    return run_command(PROG, command)


def _write(comparison: TableComparison, folder: Path) -> list[str]:
    from ofa_profiler.pages.page import NOT_INSTALLED, can_write_pages
    from ofa_profiler.verification.comparison import save_comparison

    written = [str(path) for path in save_comparison(comparison, folder)]
    if not can_write_pages():
        say(f"note: {NOT_INSTALLED}")
    say(f"written: {', '.join(written)}")
    return written


if __name__ == "__main__":
    sys.exit(leave(main()))
