"""The latency tables of `--lut`: one per device, or in mixed precision one pair per device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.identity import DeviceIdentity
from ofa_profiler.protocol.target import MIXED
from ofa_profiler.spaces import SearchSpace, get_space, known_space, space_names
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.consistency import check_of_space
from ofa_profiler.tables.mixed import AnyTable, MixedTable
from ofa_profiler.tables.table import LatencyTable

#: The settings that both tables of a pair have, beside those of `DeviceIdentity`.
_SETTINGS = ("threads", "batch")


def table_count(paths: Sequence[str], precision: str | None) -> int:
    """How many budgets the tables of `--lut` need. Raises `UsageError` for a table without its partner."""
    if precision != MIXED:
        return len(paths)
    if len(paths) % 2:
        raise UsageError(
            f"--precision {MIXED} needs two tables per device, one of fp32 and one of int8, but there are "
            f"{len(paths)} --lut; ofa-profile --precision fp32,int8 makes both"
        )
    return len(paths) // 2


class Loader(dict[str, LatencyTable]):
    """Reads each table once."""

    def __missing__(self, path: str) -> LatencyTable:
        self[path] = LatencyTable.load(path)
        return self[path]


def read_tables(paths: Sequence[str], precision: str | None, loader: Loader | None = None) -> list[AnyTable]:
    """The tables in these files; for mixed precision, their pairs. Raises `UsageError` and `InputFileError`."""
    loader = Loader() if loader is None else loader
    before = set(loader)
    tables = [loader[path] for path in paths]
    for table, path in zip(tables, paths, strict=True):
        check_of_space(path, table.metadata)
    tables = _told_apart(tables, paths)
    read: list[AnyTable] = [*(_pairs(tables) if precision == MIXED else tables)]
    for each in read if before.isdisjoint(paths) else ():  # once
        for warning in each.warnings:
            say(f"warning: {warning}")
    return read


def _told_apart(tables: Sequence[LatencyTable], paths: Sequence[str]) -> list[LatencyTable]:
    """The tables; those with the name of an earlier one get a number, as published folders are often called alike.

    Raises `UsageError` for a table that is given twice.
    """
    places: set[Path] = set()
    found: list[LatencyTable] = []
    names = {table.name for table in tables}
    taken: set[str] = set()
    for table, path in zip(tables, paths, strict=True):
        place = Path(path).resolve()
        if place in places:
            raise UsageError(f"--lut {path} is given twice")
        name = table.name
        if name in taken:
            name = next(free for n in count(2) if (free := f"{table.name}-{n}") not in taken | names)
            say(f"{path} is called {name} here")
            table = replace(table, name=name)
        places.add(place)
        taken.add(name)
        found.append(table)
    return found


def _pairs(tables: Sequence[LatencyTable]) -> list[MixedTable]:
    """The tables of both precisions of each device, in the order of the first table of each."""
    if len(tables) == 2:
        return [MixedTable.of(tables)]  # raises an error that says what does not fit
    left, pairs = list(tables), []
    while left:
        table = left.pop(0)
        partners = [other for other in left if _place(other) == _place(table)]
        if len(partners) != 1:
            problem = "no other table is" if not partners else f"{', '.join(other.name for other in partners)} are"
            raise UsageError(
                f"--precision {MIXED}: table {table.name} needs one partner of the same device and settings, but "
                f"{problem}"
            )
        left.remove(partners[0])
        pairs.append(MixedTable.of([table, partners[0]]))
    return pairs


def _place(table: LatencyTable) -> tuple[object, ...]:
    """What the tables of a pair share: the device and the settings."""
    identity = DeviceIdentity.from_table(table.metadata)
    return (identity, *(table.metadata.get(name) for name in _SETTINGS))


def plain_space(name: str | None, tables: Sequence[AnyTable], precision: str) -> SearchSpace:
    """The space of this name, or the one that all tables cover, in one precision. Raises `UsageError`."""
    if name is None:
        return _common_space(tables)
    space = get_space(name)
    if not isinstance(space, MixedSpace):
        return space
    if precision != MIXED:
        raise UsageError(f"--space {name}: its networks need --precision {MIXED} and a table of each precision")
    return space.plain


def _common_space(tables: Sequence[AnyTable]) -> SearchSpace:
    """The one space that all tables cover. Raises `UsageError` if there is none, or more than one."""
    common = [name for name in space_names() if all(name in table.spaces for table in tables)]
    if len(common) == 1:
        return get_space(common[0])
    names = ", ".join(table.name for table in tables)
    if common:
        raise UsageError(f"{names}: the tables cover the spaces {', '.join(common)}; choose one with --space")
    if users := next((name for table in tables for name in table.spaces if is_module_name(name)), None):
        known_space(users)  # raises: a table does not decide which module of a user is imported
    each = "; ".join(f"{table.name} covers {', '.join(table.spaces) or 'no known space'}" for table in tables)
    raise UsageError(f"the tables have no search space in common: {each}")
