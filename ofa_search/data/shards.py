"""Which parquet files belong to which split, by their names alone. Pure functions over paths.

The rules are those of Hugging Face's `datasets`: keywords in the names of folders come first, then those in the names
of files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ofa_search.data.classes import NotUnderstood
from ofa_search.data.layout import ALL
from ofa_search.data.tree import NOTE, Remark
from ofa_search.data.words import alike_but_for_a_keyword, splits_in, splits_of

#: `train-00000-of-00003.parquet`, `train-00000-of-00003-cca7aec18a9a4de2.parquet`.
_NUMBERED = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d{1,6})-of-(?P<count>\d{1,6})(?P<rest>.*)", re.DOTALL)
_SHOWN = 5
_MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shards:
    """Split -> the paths of its files below the root, and what is left out or missing."""

    splits: Mapping[str, tuple[str, ...]]
    remarks: tuple[Remark, ...] = ()


def sort_shards(paths: Sequence[str]) -> Shards:
    """The files of each split; a data set whose names have no keyword has the split `ALL`.

    Raises `NotUnderstood` where files of several data sets, or shards of two writings, lie together.
    """
    of = _by_folder(paths) or _by_file(paths)
    if not of:
        _refuse_alike(paths)
        _refuse_two_writings(paths)
        return Shards({ALL: tuple(paths)}, tuple(_missing(paths)))
    splits: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if path in of:
            splits[of[path]].append(path)
    remarks = [Remark(path, "its name belongs to no split") for path in paths if path not in of]
    for files in splits.values():
        _refuse_two_sets(files)
        _refuse_two_writings(files)
        remarks += _missing(files)
    return Shards({split: tuple(files) for split, files in splits.items()}, tuple(remarks))


def _by_folder(paths: Iterable[str]) -> dict[str, str]:
    """Path -> split, where a folder on the way names exactly one."""
    of_folder = splits_of({part for path in paths for part in path.split("/")[:-1]})
    found = {}
    for path in paths:
        splits = {of_folder[part] for part in path.split("/")[:-1] if part in of_folder}
        if len(splits) == 1:
            (found[path],) = splits
    return found


def _by_file(paths: Iterable[str]) -> dict[str, str]:
    of_name = splits_of({_file_name(path) for path in paths})
    return {path: of_name[name] for path in paths if (name := _file_name(path)) in of_name}


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _refuse_alike(paths: Sequence[str]) -> None:
    several = [path for path in paths if any(len(splits_in(part)) > 1 for part in path.split("/"))]
    if several and len(paths) > 1:
        raise NotUnderstood("", f"{several[0]} is named after two splits; name the file itself")
    if pair := alike_but_for_a_keyword(paths):
        raise NotUnderstood("", f"{pair[0]} and {pair[1]} look like splits; name the file itself")


def _refuse_two_sets(paths: Iterable[str]) -> None:
    """Refuse the same split of several data sets, like `cifar10/train-*` and `cifar100/train-*`."""
    places = {_data_set(path): path for path in sorted(paths)}
    if len(places) > 1:
        folders = ", ".join(path.rpartition("/")[0] or "." for path in list(places.values())[:_SHOWN])
        raise NotUnderstood("", f"has parquet files of one split in several folders ({folders}); give one of them")


def _data_set(path: str) -> str:
    """The folders above the one that names the split."""
    folders = path.split("/")[:-1]
    named = [place for place, name in enumerate(folders) if splits_of([name])]
    return "/".join(folders[: named[0]] if named else folders)


def _numbered(paths: Iterable[str]) -> dict[str, dict[int, dict[int, list[str]]]]:
    """Name -> number of shards -> number of the shard -> its files."""
    found: dict[str, dict[int, dict[int, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path in paths:
        if match := _NUMBERED.fullmatch(path):
            found[match["name"]][int(match["count"])][int(match["number"])].append(path)
    return found


def _refuse_two_writings(paths: Iterable[str]) -> None:
    """Refuse shards of the same data set written twice: its images would be there twice."""
    for counts in _numbered(paths).values():
        several = [files[0] for shards in counts.values() for files in shards.values()] if len(counts) > 1 else []
        several = several or next((f for shards in counts.values() for f in shards.values() if len(f) > 1), [])
        if several:
            raise NotUnderstood(
                "", f"{several[0]} and {several[-1]} are shards of two writings of one split; move one away"
            )


def _missing(paths: Sequence[str]) -> list[Remark]:
    notes = []
    for name, counts in _numbered(paths).items():
        ((count, shards),) = counts.items()
        absent = [number for number in range(min(count, _MOST_SHARDS)) if number not in shards]
        if absent:
            shown = ", ".join(f"{number:05d}-of-{count:05d}" for number in absent[:_SHOWN])
            more = ", …" if len(absent) > _SHOWN else ""
            notes.append(Remark(name, f"{len(absent)} of {count} shards are missing ({shown}{more})", NOTE))
    return notes
