"""Kits of several cells, and the runtime in a kit: wheels for the Python of a board."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection
from pathlib import Path

from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.provision import note_other_release, wanted_release
from ofa_profiler.devices.remote.wheels import find_wheels
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.cells import Cell
from ofa_profiler.protocol.kit import KitWheels, check_new


def wheels_for(arguments: argparse.Namespace, runtime: str) -> tuple[KitWheels | None, str | None]:
    """The wheels that `--wheels` asks for, and the release of the runtime as far as it is known.

    Raises `UsageError` if there are none for that board.
    """
    if arguments.wheels is None:
        return None, arguments.runtime_version
    board = Board.from_tag(arguments.wheels)
    remedy = f"install the runtime on the board and omit --wheels, or name its C library: {board.tag}-glibc2.36"
    wanted = wanted_release(runtime, device_options(arguments))
    wheels = find_wheels(runtime, board, tell=say, remedy=remedy, wanted=wanted)
    note_other_release(wheels, board, wanted, say)
    return KitWheels(board.tag, wheels.paths), wheels.version


def write_for_cells(
    prog: str,
    arguments: argparse.Namespace,
    cells: Collection[Cell],
    write: Callable[[Cell, Path], dict[str, object]],
) -> int:
    """Write a kit for each cell, in folders of their own if there are several, and report -> the exit code.

    `write` gives what the JSON document says about a kit. A refused cell has a reason instead. Raises `UsageError` if
    the folder is not empty.
    """
    check_new(arguments.kit)
    documents: list[dict[str, object]] = []
    for cell in cells:
        folder = arguments.kit if len(cells) == 1 else arguments.kit / cell.name
        if cell.refused:
            say(f"{prog}: {cell.label}: {cell.refused}")
            documents.append({"kit": str(folder), "error": cell.refused, "exit_code": UsageError.exit_code})
            continue
        documents.append({"kit": str(folder), **write(cell, folder)})
        say(f"{folder}: complete. Copy the folder to the board and run there: python3 agent.py --kit .")
    if len(cells) > 1:
        say("the board measures one kit after the other, so only tables made with --device are measured in turns")
    if arguments.json:
        print(json.dumps(documents[0] if len(cells) == 1 else {"kits": documents}, indent=2))
    return 0
