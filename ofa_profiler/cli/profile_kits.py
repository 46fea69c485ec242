"""What `ofa-profile --kit` does: a folder per table with everything that a board without a connection needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.cli.kits import wheels_for, write_for_cells
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.measuring.cells import Cell
from ofa_profiler.protocol.forms import FAST
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.verification.kit import make_kit


def write_kits(prog: str, arguments: argparse.Namespace, space: SearchSpace, cells: Sequence[Cell]) -> int:
    """A kit, or a kit per cell in folders of their own -> the exit code."""

    def write(cell: Cell, folder: Path) -> dict[str, object]:
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
        return {"models": count.ops, "networks": count.networks, "space": space.name}

    return write_for_cells(prog, arguments, cells, write)
