"""What lies in a file in place of an image or a parquet file."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_MAGIC = {
    b"PK\x03\x04": "an archive; unpack it",
    b"\x1f\x8b": "an archive; unpack it",
    b"Rar!": "an archive; unpack it",
    b"7z\xbc\xaf": "an archive; unpack it",
    b"%PDF": "a PDF document",
    b"ARROW1": "an Arrow file; write it with datasets.Dataset.to_parquet",
}
_HEAD_BYTES = 512


def what_instead(path: Path) -> str | None:
    """Like `what_is`, of the file at `path`."""
    try:
        with path.open("rb") as file:
            return what_is(file.read(_HEAD_BYTES))
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def what_is(data: bytes) -> str | None:
    """What a file with these first bytes is, if it is known and neither an image nor a parquet file."""
    if not data:
        return "empty"
    if data.startswith(_LFS):
        return "a Git LFS pointer: run `git lfs pull` to get the file"
    head = data[:_HEAD_BYTES].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if not data.strip(b"\0") and len(data) >= 64:
        return "nothing but zero bytes"
    if data[257:262] == b"ustar":
        return "an archive; unpack it"
    return next((what for magic, what in _MAGIC.items() if data.startswith(magic)), None)
