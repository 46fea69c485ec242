"""The state of an Android phone during measurements: clocks that neither boost nor throttle, and the screen awake.

A small program on the phone sets the state. It restores the original state when its stdin ends or the heartbeats stop,
so also when this machine dies, the cable is pulled, or a wireless link is lost silently. The original state is also
kept in a file, in case the program dies; the next run then restores it. The file is written before any change.
"""

from __future__ import annotations

import secrets

from ofa_profiler.devices.remote.heartbeat import Heartbeat
from ofa_profiler.devices.remote.shell import Running, Shell, one_line, remove_folder
from ofa_profiler.errors import DeviceError, TransientDeviceError

#: Arguments: the file, a name for this run, and the seconds to wait for a heartbeat. The file names the run that must
#: restore the state, and the original state. If an earlier run lost its connection silently, a new run takes over, and
#: the end of the earlier run then changes nothing. `settings` reads what `svc` changes; some systems lack one of them.
#: The performance mode cannot be read. Android disables it at every start, so disabled is the original state. Old
#: shells cannot wait for a limited time.
_HOLD = """\
restore() {
  [ -f "$1" ] || return 0
  read -r owner stay < "$1"
  [ -z "$2" ] || [ "$owner" = "$2" ] || return 0
  cmd power set-fixed-performance-mode-enabled false >/dev/null 2>&1
  case $stay in
    [0-9]*) settings put global stay_on_while_plugged_in "$stay" >/dev/null 2>&1;;
    *) svc power stayon false >/dev/null 2>&1;;
  esac
  rm -f "$1"
}
trap '' HUP
trap 'restore "$1" "$2"; exit 1' INT TERM
mkdir -p "${1%/*}"
if [ -f "$1" ]; then
  read -r owner stay < "$1"
else
  stay=$(settings get global stay_on_while_plugged_in 2>/dev/null)
fi
echo "$2 ${stay:-unknown}" > "$1.$2" && mv "$1.$2" "$1" || exit 1
fixed=false; awake=false
cmd power set-fixed-performance-mode-enabled true >/dev/null 2>&1 && fixed=true
svc power stayon true >/dev/null 2>&1 && awake=true
echo "fixed_performance_mode=$fixed stay_awake=$awake"
if [ -z "$(read -r -t 1 line </dev/null 2>&1)" ]; then
  while read -r -t "$3" line; do :; done
else
  cat >/dev/null
fi
restore "$1" "$2"
echo restored
"""
_RESTORE = _HOLD.partition("trap")[0] + 'restore "$1" ""\n'
_FILE = "state-before"
_MAX_LINE = 4096
_HEARTBEAT_S = 10.0
_PATIENCE_S = 60


class AndroidState:
    """A context manager that holds a phone at fixed performance and awake, and restores its original state."""

    def __init__(self, shell: Shell, root: str) -> None:
        self._shell, self._root = shell, root
        self._holder: Running | None = None
        self._heartbeat: Heartbeat | None = None
        #: Which settings the system has and were applied; empty outside.
        self.settings: dict[str, bool] = {}

    def __enter__(self) -> AndroidState:
        arguments = [f"{self._root}/{_FILE}", secrets.token_hex(8), str(_PATIENCE_S)]
        self._holder = self._shell.spawn(["sh", "-c", _HOLD, "sh", *arguments])
        try:
            words = self._holder.output.read_line(_MAX_LINE).decode("utf-8", "replace").split()
            pairs = [word.partition("=") for word in words]
            self.settings = {name: value == "true" for name, _, value in pairs}
            if not words:
                said = one_line(self._holder.process.last_words())
                raise DeviceError(f"{self._shell.spec}: the state of the phone cannot be saved: {said}")
        except BaseException:
            self._holder.process.close()
            self._holder = None
            raise
        self._heartbeat = Heartbeat(self._holder.process, _HEARTBEAT_S)
        return self

    def __exit__(self, *_error: object) -> None:
        holder, self._holder, self.settings = self._holder, None, {}
        if holder is None:
            return
        if self._heartbeat is not None:
            self._heartbeat.stop()
        try:
            holder.process.close_input()
            while holder.output.read_line(_MAX_LINE):
                pass
        except TransientDeviceError:
            pass  # the connection is lost; the program on the phone detects that too
        finally:
            holder.process.close()


def restore_state(shell: Shell, root: str) -> None:
    """Restore the original state that an interrupted run has left in its file. Raises `DeviceError`."""
    shell.run(["sh", "-c", _RESTORE, "sh", f"{root}/{_FILE}"])


def remove_from_phone(shell: Shell, root: str) -> str:
    """Remove the folder `root` from the phone, and return its path. Raises `DeviceError`."""
    restore_state(shell, root)  # the folder contains the original state
    return remove_folder(shell, root)
