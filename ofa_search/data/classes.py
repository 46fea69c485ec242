"""Which folders are the classes of a data set, or of one split of it. Pure functions over names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ofa_search.data.tree import METADATA, NOTE, Folder, Remark, count_of
from ofa_search.data.words import is_keyword, splits_of


class NotUnderstood(Exception):
    """The folder at `place` cannot be used; `problem` says why, and what to do."""

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place}: {problem}" if place else problem)


@dataclass(frozen=True)
class Classes:
    """Class -> the paths of its files, and what to tell."""

    files: Mapping[str, tuple[str, ...]]
    notes: tuple[Remark, ...] = ()


def classes_in(node: Folder, repeated: frozenset[str] = frozenset()) -> Classes:
    """The classes of a folder without splits.

    A keyword alone is the name of a class only if it is `repeated` in several splits. Raises `NotUnderstood`.
    """
    notes: list[Remark] = []
    while len(node.filled) == 1 and node.filled[0].filled:
        if node.images:
            notes.append(Remark(node.place, f"{count_of(len(node.images))} beside the folders"))
        node = node.filled[0]
    filled = node.filled
    if not filled:
        described = [name for name, _ in node.others if name in METADATA]
        what = "holds images, but no folder per class" if node.images else "holds no images"
        unread = "".join(f" ({name} is not read)" for name in described)
        raise NotUnderstood(node.place, f"{what}; put those of each class into a folder with its name{unread}")
    _refuse_splits(node, repeated)
    if node.images:
        notes.append(Remark(node.place, f"{count_of(len(node.images))} beside the folders"))
    if all(not folder.filled for folder in filled):
        return Classes(_each(filled), tuple(notes))
    if _is_wrapped(filled):
        return Classes(_each(filled), tuple(notes))
    return _nested(node, notes)


def _each(folders: Iterable[Folder]) -> dict[str, tuple[str, ...]]:
    return {folder.name: tuple(folder.image_places()) for folder in folders}


def _refuse_splits(node: Folder, repeated: frozenset[str]) -> None:
    of = splits_of(folder.name for folder in node.filled)
    doubtful = [name for name in of if is_keyword(name) and name not in repeated]
    if len(set(of.values())) > 1 or len(of) == len(node.filled) or doubtful:
        name = doubtful[0] if doubtful else next(iter(of))
        raise NotUnderstood(
            node.place, f"its folder {name!r} looks like a split, not like a class; give the folder of one split"
        )


def _is_wrapped(folders: Iterable[Folder]) -> bool:
    """Whether each class has its images in one folder more: `cat/images/1.jpg`, or `cat/cat/1.jpg`."""
    inner = [(folder.name, folder.filled) for folder in folders if not folder.images]
    single = [(name, below[0]) for name, below in inner if len(below) == 1 and not below[0].filled]
    if len(single) != len(list(folders)):
        return False
    return len({below.name for _, below in single}) == 1 or all(name == below.name for name, below in single)


def _nested(node: Folder, notes: list[Remark]) -> Classes:
    """Classes some of which have folders of their own."""
    leaves = {folder.place: [below for below in folder.walk() if below.images] for folder in node.filled}
    _refuse_repeated(node)
    depths = {below.place.count("/") for folders in leaves.values() for below in folders}
    innermost = [below for folders in leaves.values() for below in folders]
    if len(depths) == 1:
        notes.append(Remark(node.place, "the innermost folders are the classes", NOTE))
        return Classes(_each(innermost), tuple(notes))
    notes += [
        Remark(folder.place, "the class has the images of all folders in it", NOTE)
        for folder in node.filled
        if folder.filled
    ]
    return Classes(_each(node.filled), tuple(notes))


def _refuse_repeated(node: Folder) -> None:
    """Refuse folders below a class that are named as those of another class, or as a class: one level too high."""
    tops = {folder.name for folder in node.filled}
    deeper = {
        folder.place: {below.name for below in folder.walk() if below.image_count} - {folder.name}
        for folder in node.filled
        if folder.filled
    }
    for folder in node.filled:
        for name in sorted(deeper.get(folder.place, ())):
            if name in tops:
                raise NotUnderstood(
                    folder.place, f"holds a folder {name!r} like the one beside it; move one of them away"
                )
    owners: dict[str, str] = {}
    for folder in node.filled:
        if folder.images:
            continue
        for name in sorted(deeper.get(folder.place, ())):
            if (first := owners.setdefault(name, folder.place)) != folder.place:
                raise NotUnderstood(
                    node.place,
                    f"one level too high: {name!r} is in {first!r} and in {folder.place!r}; give one of these folders",
                )
