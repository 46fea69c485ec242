"""What the files of published tables have in common, however they are written."""

from __future__ import annotations

NO_TABLE = "is not a published table: it must map the keys of ops to count, mean and std"
FIELDS = "its count, mean and std"

#: (key, fields as text, line in the file if known)
Entry = tuple[str, dict[str, str], int | None]
