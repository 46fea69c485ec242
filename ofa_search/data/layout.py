"""What the folders of an image data set mean: splits, classes and their files. Pure functions over names.

A folder is a split if its name has a keyword (`words.py`); its innermost folders are the classes, as in Hugging Face's
`datasets`. What cannot be understood is refused: a folder must never become a class by mistake.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ofa_search.data.classes import Classes, NotUnderstood, classes_in
from ofa_search.data.tree import Folder
from ofa_search.data.words import TEST, TRAIN, UNLABELLED, VALIDATION, alike_but_for_a_keyword, splits_of

#: The split of a data set that has none.
ALL = "all"
#: Splits for each use, the best first.
USED_FOR = {TRAIN: (TRAIN, ALL), TEST: (TEST, VALIDATION, ALL), UNLABELLED: (TRAIN, ALL, VALIDATION, TEST)}

#: An error names so many things that are left out.
_MOST_REASONS = 3


@dataclass(frozen=True)
class LeftOut:
    """Something in a data set that is not used; `place` is a path below its root, empty for the root."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.place else self.reason


@dataclass(frozen=True)
class Layout:
    """Split -> class -> the paths of its files below the root. A data set without splits has the split `ALL`."""

    splits: Mapping[str, Mapping[str, tuple[str, ...]]]
    left_out: tuple[LeftOut, ...] = ()

    def chosen(self, use: str) -> tuple[str, Mapping[str, tuple[str, ...]]]:
        """The split for `use` (`train` or `test`) and its classes. Raises `NotUnderstood`."""
        split = next((split for split in USED_FOR[use] if split in self.splits), None)
        left_out = "".join(f"; left out: {entry}" for entry in self.left_out[:_MOST_REASONS])
        if split is None:
            raise NotUnderstood(
                "",
                f"has {' and '.join(self.splits) or 'no'} images, but no images for {use}: give the folder that holds the "
                f"classes, or rename a class that is named like a split{left_out}",
            )
        classes = self.splits[split]
        if use == TRAIN and len(classes) < 2:
            raise NotUnderstood(
                "", f"all images are in one class, {next(iter(classes))!r}: give one folder per class{left_out}"
            )
        return split, classes


def understand(root: Folder) -> Layout:
    """The layout of the tree. Raises `NotUnderstood`, which names the place and the remedy."""
    layout = _understand(root)
    return Layout(layout.splits, (*layout.left_out, *_problems(root)))


def _understand(node: Folder) -> Layout:
    left_out: list[LeftOut] = []
    while True:
        if split_folders := _split_folders(node):
            layout = _with_splits(node, split_folders)
            break
        only = _only_nested(node)
        if only is None:
            layout = _without_split_folders(node)
            break
        left_out += _loose(node)
        node = only
    return Layout(layout.splits, (*left_out, *layout.left_out))


def _only_nested(node: Folder) -> Folder | None:
    """The only folder with images, if these are in folders of their own."""
    return node.filled[0] if len(node.filled) == 1 and node.filled[0].filled else None


def _split_folders(node: Folder) -> dict[str, list[Folder]]:
    """Split -> the folders of that split, directly in `node`."""
    of = splits_of(folder.name for folder in node.filled)
    found: dict[str, list[Folder]] = defaultdict(list)
    for folder in node.filled:
        if folder.name in of:
            found[of[folder.name]].append(folder)
    if not found and (pair := alike_but_for_a_keyword(folder.name for folder in node.filled)):
        raise NotUnderstood(
            node.place,
            f"the folders {pair[0]!r} and {pair[1]!r} look like splits, not like classes; "
            "name them train and test, or give one of them",
        )
    return found


# --- with folders for splits -------------------------------------------------------------------------


def _with_splits(node: Folder, found: Mapping[str, Sequence[Folder]]) -> Layout:
    left_out = _loose(node)
    named = {folder.place for folders in found.values() for folder in folders}
    left_out += [
        LeftOut(folder.place, f"{count_of(folder.image_count)} beside the split folders")
        for folder in node.filled
        if folder.place not in named
    ]
    repeated = _names_in_several(found)
    parts: dict[str, list[Classes]] = defaultdict(list)
    for split, folders in found.items():
        for folder in folders:
            part = _understood(folder, repeated)
            if isinstance(part, Classes):
                parts[split].append(part)
            else:
                left_out.append(part)
    splits = {split: _merged(classes) for split, classes in parts.items()}
    left_out += [LeftOut(*note) for classes in parts.values() for part in classes for note in part.notes]
    for split in [split for split, classes in splits.items() if _is_no_class(split, classes, splits)]:
        (name,) = splits.pop(split)
        left_out.append(LeftOut(found[split][0].place, f"all images are in one folder, {name!r}"))
    return Layout(splits, tuple(left_out))


def _understood(folder: Folder, repeated: frozenset[str]) -> Classes | LeftOut:
    try:
        return classes_in(folder, repeated)
    except NotUnderstood as error:
        return LeftOut(error.place, error.problem)


def _is_no_class(split: str, classes: Mapping[str, object], splits: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether the only folder of a split for testing is none of the classes of the training split."""
    return split != TRAIN and len(classes) == 1 and not set(classes) <= set(splits.get(TRAIN, classes))


def _names_in_several(found: Mapping[str, Sequence[Folder]]) -> frozenset[str]:
    """The names of folders that occur in several splits."""
    count = Counter(
        name
        for folders in found.values()
        for name in {below.name for folder in folders for below in folder.walk() if below is not folder}
    )
    return frozenset(name for name, splits in count.items() if splits > 1)


def _merged(parts: Iterable[Classes]) -> dict[str, tuple[str, ...]]:
    merged: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for name, files in part.files.items():
            merged[name] = merged.get(name, ()) + files
    return dict(sorted(merged.items()))


# --- without -----------------------------------------------------------------------------------------


def _without_split_folders(node: Folder) -> Layout:
    inner = [folder for folder in node.filled if _holds_splits(folder)]
    if len(inner) == 1:
        left_out = [
            LeftOut(folder.place, f"{count_of(folder.image_count)} beside the split folders of {inner[0].name}")
            for folder in node.filled
            if folder is not inner[0]
        ]
        layout = _understand(inner[0])
        return Layout(layout.splits, (*_loose(node), *left_out, *layout.left_out))
    if inner and len(inner) == len(node.filled) and (by_class := _splits_of_classes(inner)):
        return Layout(by_class, tuple(_loose(node)))
    if inner:
        names = ", ".join(repr(folder.place) for folder in inner[:3])
        raise NotUnderstood(
            node.place, f"one level too high: {len(inner)} folders have splits ({names}); give one of them"
        )
    classes = classes_in(node)
    left_out = [*_loose(node), *(LeftOut(*note) for note in classes.notes)]
    return _by_file_names(dict(sorted(classes.files.items())), left_out)


def _holds_splits(folder: Folder) -> bool:
    """Whether it has a folder for training, or folders of two splits, behind folders that hold nothing else."""
    while (only := _only_nested(folder)) is not None and not splits_of([only.name]):
        folder = only
    found = set(splits_of(below.name for below in folder.filled).values())
    return TRAIN in found or len(found) > 1


def _splits_of_classes(classes: Sequence[Folder]) -> dict[str, dict[str, tuple[str, ...]]]:
    """For `cat/train/1.jpg`: split -> class -> files; empty if the folders are not of this kind."""
    splits: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for folder in classes:
        of = splits_of(below.name for below in folder.filled)
        if folder.images or any(below.filled or below.name not in of for below in folder.filled):
            return {}
        for below in folder.filled:
            splits[of[below.name]][folder.name] = tuple(below.image_places())
    return dict(splits)


def _by_file_names(classes: Mapping[str, tuple[str, ...]], left_out: list[LeftOut]) -> Layout:
    """Splits by the names of files, if these name several, and training, or no file without a split."""
    names = {path.rpartition("/")[2] for files in classes.values() for path in files}
    of = splits_of(name for name in names if _may_have_keyword(name))
    splits: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    named = unnamed = 0
    for label, files in classes.items() if of else ():
        for path in files:
            if (split := of.get(path.rpartition("/")[2])) is None:
                unnamed += 1
            else:
                named += 1
                splits[split][label].append(path)
    if len(splits) < 2 or (unnamed and TRAIN not in splits):
        if named:
            left_out.append(LeftOut("", f"nothing, but {count_of(named)} have names like those of a split"))
        return Layout({ALL: classes}, tuple(left_out))
    if unnamed > named:
        raise NotUnderstood(
            "", f"{count_of(named)} have names like those of splits, and {unnamed} have not; move or rename them"
        )
    if unnamed:
        left_out.append(LeftOut("", f"{count_of(unnamed)} whose names belong to no split"))
    by_split = {split: {name: tuple(files) for name, files in parts.items()} for split, parts in splits.items()}
    return Layout(by_split, tuple(left_out))


_HINTS = ("train", "val", "dev", "test")


def _may_have_keyword(name: str) -> bool:
    lower = name.lower()
    return any(hint in lower for hint in _HINTS)


# --- what is left out --------------------------------------------------------------------------------


def _loose(node: Folder) -> list[LeftOut]:
    if node.images and node.filled:
        return [LeftOut(node.place, f"{count_of(len(node.images))} beside the folders")]
    return []


def _problems(root: Folder) -> list[LeftOut]:
    """Folders that were not read, folders without an image that can be read, and other files by suffix."""
    left_out = [LeftOut(folder.place, folder.problem) for folder in root.walk() if folder.problem]
    files: Counter[str] = Counter()
    for folder in root.walk():
        if folder.image_count:
            files.update(dict(folder.others))
            empty = [(below.place, below.other_files()) for below in folder.folders if not below.image_count]
            left_out += [
                LeftOut(place, f"no image that can be read ({spell(others)})") for place, others in empty if others
            ]
    if files:
        left_out.append(LeftOut("", f"files that are no images: {spell(files)}"))
    return left_out


def spell(suffixes: Counter[str]) -> str:
    """Like `12 .txt, 1 .heic (to read them: pip install pillow-heif)`."""
    shown = [f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(8)]
    if more := len(suffixes) - len(shown):
        shown.append(f"{more} more suffixes")
    return ", ".join(shown) + "".join(f" ({hint})" for hint in sorted({_hint(suffix) for suffix in suffixes} - {""}))


def _hint(suffix: str) -> str:
    if suffix in (".heic", ".heif"):
        return "to read .heic: pip install pillow-heif"
    return "unpack the archives" if suffix in (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z") else ""


def count_of(count: int, what: str = "image") -> str:
    """Like `1 image` and `3 classes`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"
