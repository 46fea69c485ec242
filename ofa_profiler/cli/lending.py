"""`--acquire CMD` and `--release CMD`: the commands of a lab that lends its devices, run around the use of each."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ofa_profiler.errors import DeviceError, OfaError, UsageError

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

#: In words of the commands, this is the name of the device.
_PLACEHOLDER = "{device}"


def add_lending_options(group: argparse._ArgumentGroup) -> None:
    """Add `--acquire` and `--release`; `lending_of` reads them."""
    group.add_argument(
        "--acquire",
        metavar="CMD",
        help="command that borrows the device before its use, run without a shell; {device} in it and $OFA_DEVICE are "
        "the name of the device",
    )
    group.add_argument(
        "--release",
        metavar="CMD",
        help="command that gives the device back, also after a failure or Ctrl-C; at most 60 s",
    )


def lending_of(arguments: argparse.Namespace, *, used: bool = True) -> Lending:
    """The commands. Raises `UsageError` for one that cannot be run, and for any if no device is `used`."""
    words = {option: getattr(arguments, option, None) for option in ("acquire", "release")}
    for option, text in words.items():
        if text is not None and not used:
            raise UsageError(f"--{option} is for a device that is measured, and none is given")
    return Lending(**{option: _split(option, text) for option, text in words.items()})


def _split(option: str, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--{option} {text!r:.100}: {error}") from None
    if not words:
        raise UsageError(f"--{option} is empty: give a command, such as 'lab borrow {{device}}'")
    import shutil  # most commands borrow nothing

    if _PLACEHOLDER not in words[0] and shutil.which(words[0]) is None:
        raise UsageError(f"--{option}: the program {words[0]!r:.100} was not found, or cannot be executed")
    return tuple(words)


@dataclass
class Lending:
    """The words of both commands, and how many devices could not be released."""

    acquire: Sequence[str] | None = None
    release: Sequence[str] | None = None
    failures: int = field(default=0, init=False)

    @contextmanager
    def lent(self, device: Device) -> Iterator[Device]:
        """`borrowed`, with the device opened meanwhile."""
        with self.borrowed(device.spec), device:
            yield device

    @contextmanager
    def borrowed(self, spec: str) -> Iterator[None]:
        """Acquire a device, and release it at the end, whatever happens.

        Raises `DeviceError` if it cannot be acquired; then there is nothing to release. A release that fails is
        reported, and counts in `exit_code`.
        """
        if self.acquire is None and self.release is None:
            yield
            return
        from ofa_profiler.cli.lending_commands import acquire

        is_lent = True  # perhaps, if the acquisition is interrupted
        try:
            if self.acquire is not None:
                try:
                    acquire(_for(spec, self.acquire), spec)
                except OfaError:
                    is_lent = False
                    raise
            yield
        finally:
            if is_lent:
                self._release(spec)

    def exit_code(self, code: int) -> int:
        """The exit code of a command that would end with `code`."""
        return code or (DeviceError.exit_code if self.failures else 0)

    def _release(self, spec: str) -> None:
        if self.release is not None:
            from ofa_profiler.cli.lending_commands import release

            self.failures += not release(_for(spec, self.release), spec)


def _for(spec: str, words: Sequence[str]) -> list[str]:
    return [word.replace(_PLACEHOLDER, spec) for word in words]
