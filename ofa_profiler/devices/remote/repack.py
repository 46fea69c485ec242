"""Makes wheels of installed packages, for a board. Only their members matter there (PEP 427)."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path, PurePosixPath

from ofa_profiler.errors import DeviceError

#: The same files give the same bytes, so that a board which has them gets nothing again.
_TIME = (1980, 1, 1, 0, 0, 0)


def repack(installed: Path, folder: Path) -> None:
    """Write a wheel into `folder` for each package in the folder `installed`. Raises `DeviceError`."""
    folder.mkdir(parents=True, exist_ok=True)
    for info in sorted(installed.glob("*.dist-info")):
        try:
            with (info / "RECORD").open(encoding="utf-8", newline="") as file:
                listed = sorted({row[0] for row in csv.reader(file) if row})
        except OSError as error:
            raise DeviceError(f"{info.name} is not an installed package: {error.strerror or error}") from error
        # Programs and other data lie outside the package, and a board does not need them.
        # The rest of the metadata describes this installation.
        ours = [name for name in listed if not name.startswith(f"{info.name}/") or name.endswith("/METADATA")]
        names = [name for name in ours if _is_inside(name) and (installed / name).is_file()]
        wheel = folder / f"{info.name.removesuffix('.dist-info')}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                member = zipfile.ZipInfo(name, _TIME)
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, (installed / name).read_bytes())


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and parts[0] not in ("/", "bin", "share", "etc", "include", "Scripts")
