"""What `ofa-profile --kit` does: a folder per table with everything that a board without a connection needs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.cli.kits import wheels_for
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.cells import Cell
from ofa_profiler.protocol.forms import FAST
from ofa_profiler.protocol.kit import check_new
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.verification.kit import make_kit


def write_kits(prog: str, arguments: argparse.Namespace, space: SearchSpace, cells: Sequence[Cell]) -> int:
    """A kit, or a kit per cell in folders of their own -> the exit code."""
    if len(cells) == 1:
        documents = [_kit(arguments, space, cells[0], arguments.kit)]
    else:
        check_new(arguments.kit)
        documents = [_kit_or_reason(prog, arguments, space, cell) for cell in cells]
        say("the board measures one kit after the other, so only tables made with --device are measured in turns")
    if arguments.json:
        print(json.dumps(documents[0] if len(cells) == 1 else {"kits": documents}, indent=2))
    return 0


def _kit_or_reason(prog: str, arguments: argparse.Namespace, space: SearchSpace, cell: Cell) -> dict[str, object]:
    folder = arguments.kit / cell.name
    if not cell.refused:
        return _kit(arguments, space, cell, folder)
    say(f"{prog}: {cell.label}: {cell.refused}")
    return {"kit": str(folder), "error": cell.refused, "exit_code": UsageError.exit_code}


def _kit(arguments: argparse.Namespace, space: SearchSpace, cell: Cell, folder: Path) -> dict[str, object]:
    wheels, release = wheels_for(arguments, cell.settings.target.runtime)
    with progress_bar() as reporter:
        count = make_kit(
            space,
            cell.settings,
            folder,
            networks=arguments.calibrate,
            more_ops=cell.more_ops(space),
            wheels=wheels,
            release=release,
            try_forms=arguments.forms == FAST,
            progress=reporter,
            tell=say,
        )
    say(f"{folder}: complete. Copy the folder to the board and run there: python3 agent.py --kit .")
    return {"kit": str(folder), "models": count.ops, "networks": count.networks, "space": space.name}
