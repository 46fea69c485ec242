"""`ofa-train`: its place and its options. This version has no training yet, and the command says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ofa_profiler.cli_support import Parser, run_command
from ofa_profiler.errors import UsageError

PROG = "ofa-train"

_DESCRIPTION = """\
Train a supernet, or an accuracy predictor for one. This version cannot do that yet: it searches with trained
supernets and predictors that are given as files (ofa-search --supernet, --predictor).
"""

_EXIT_CODES = "exit codes: 2 bad usage, as for everything that is not there yet"


def _train(argv: Sequence[str] | None) -> int:
    parser = Parser(PROG, _DESCRIPTION, _EXIT_CODES)
    parser.add_argument("what", choices=("supernet", "predictor"), help="what is to be trained")
    what = parser.parse_args(argv).what
    raise UsageError(
        f"this version cannot train a {what} yet; give ofa-search one as a file, with --supernet or --predictor"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (DESIGN.md lists them)."""
    return run_command(PROG, lambda: _train(argv))


if __name__ == "__main__":
    sys.exit(main())
