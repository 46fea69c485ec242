"""The runtime in a kit: wheels for the Python of a board."""

from __future__ import annotations

import argparse

from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.provision import note_other_release, wanted_release
from ofa_profiler.devices.remote.wheels import find_wheels
from ofa_profiler.protocol.kit import KitWheels


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
