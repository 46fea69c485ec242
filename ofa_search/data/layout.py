"""What the folders of an image data set mean: splits, classes and their files. Pure functions over names.

A folder is a split if its name has a keyword (`words.py`); its innermost folders are the classes, as in Hugging Face's
`datasets`. What cannot be understood is refused: a folder must never become a class by mistake.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ofa_search.data.classes import Classes, NotUnderstood, classes_in
from ofa_search.data.tree import METADATA, NOTE, Folder, Remark, count_of
from ofa_search.data.words import TEST, TRAIN, UNLABELLED, VALIDATION, alike_but_for_a_keyword, splits_of

#: The split of a data set that has none.
ALL = "all"
#: Splits for each use, the best first.
USED_FOR = {TRAIN: (TRAIN, ALL), TEST: (TEST, VALIDATION, ALL), UNLABELLED: (TRAIN, ALL, VALIDATION, TEST)}

#: An error names so many remarks.
_MOST_REMARKS = 3


@dataclass(frozen=True)
class Layout:
    """Split -> class -> the paths of its files below the root. A data set without splits has the split `ALL`."""

    splits: Mapping[str, Mapping[str, tuple[str, ...]]]
    remarks: tuple[Remark, ...] = ()

    def chosen(self, use: str) -> tuple[str, Mapping[str, tuple[str, ...]]]:
        """The split for `use` (`train` or `test`) and its classes. Raises `NotUnderstood`."""
        split = next((split for split in USED_FOR[use] if split in self.splits), None)
        remarks = "".join(f"; {remark}" for remark in self.remarks[:_MOST_REMARKS])
        if split is None:
            raise NotUnderstood(
                "",
                f"has {' and '.join(self.splits) or 'no'} images, but no images for {use}: give the folder that holds "
                f"the classes, or rename a class that is named like a split{remarks}",
            )
        classes = self.splits[split]
        if use == TRAIN and len(classes) < 2:
            raise NotUnderstood(
                "", f"all images are in one class, {next(iter(classes))!r}: give one folder per class{remarks}"
            )
        return split, classes


def understand(root: Folder) -> Layout:
    """The layout of the tree. Raises `NotUnderstood`, which names the place and the remedy."""
    layout = _understand(root)
    return Layout(layout.splits, (*layout.remarks, *_problems(root)))


def _understand(node: Folder) -> Layout:
    remarks: list[Remark] = []
    while True:
        if split_folders := _split_folders(node):
            layout = _with_splits(node, split_folders)
            break
        only = _only_nested(node)
        if only is None:
            layout = _without_split_folders(node)
            break
        remarks += _loose(node)
        node = only
    return Layout(layout.splits, (*remarks, *layout.remarks))


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
    remarks = _loose(node)
    named = {folder.place for folders in found.values() for folder in folders}
    remarks += [
        Remark(folder.place, f"{count_of(folder.image_count)} beside the split folders")
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
                remarks.append(part)
    splits = {split: _merged(classes) for split, classes in parts.items()}
    remarks += [note for classes in parts.values() for part in classes for note in part.notes]
    for split in [split for split, classes in splits.items() if _is_no_class(split, classes, splits)]:
        (name,) = splits.pop(split)
        remarks.append(Remark(found[split][0].place, f"all images are in one folder, {name!r}"))
    return Layout(splits, tuple(remarks))


def _understood(folder: Folder, repeated: frozenset[str]) -> Classes | Remark:
    try:
        return classes_in(folder, repeated)
    except NotUnderstood as error:
        return Remark(error.place, error.problem)


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
        remarks = [
            Remark(folder.place, f"{count_of(folder.image_count)} beside the split folders of {inner[0].name}")
            for folder in node.filled
            if folder is not inner[0]
        ]
        layout = _understand(inner[0])
        return Layout(layout.splits, (*_loose(node), *remarks, *layout.remarks))
    if inner and len(inner) == len(node.filled) and (by_class := _splits_of_classes(inner)):
        return Layout(by_class, tuple(_loose(node)))
    if inner:
        names = ", ".join(repr(folder.place) for folder in inner[:3])
        raise NotUnderstood(
            node.place, f"one level too high: {len(inner)} folders have splits ({names}); give one of them"
        )
    classes = classes_in(node)
    remarks = list(classes.notes)
    return _by_file_names(dict(sorted(classes.files.items())), remarks)


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


def _by_file_names(classes: Mapping[str, tuple[str, ...]], remarks: list[Remark]) -> Layout:
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
            remarks.append(Remark("", f"{count_of(named)} have names like those of a split", NOTE))
        return Layout({ALL: classes}, tuple(remarks))
    if unnamed > named:
        raise NotUnderstood(
            "", f"{count_of(named)} have names like those of splits, and {unnamed} have not; move or rename them"
        )
    if unnamed:
        remarks.append(Remark("", f"{count_of(unnamed)} whose names belong to no split"))
    by_split = {split: {name: tuple(files) for name, files in parts.items()} for split, parts in splits.items()}
    return Layout(by_split, tuple(remarks))


_HINTS = ("train", "val", "dev", "test")


def _may_have_keyword(name: str) -> bool:
    lower = name.lower()
    return any(hint in lower for hint in _HINTS)


# --- what is left out --------------------------------------------------------------------------------


def _loose(node: Folder) -> list[Remark]:
    if node.images and node.filled:
        return [Remark(node.place, f"{count_of(len(node.images))} beside the folders")]
    return []


def _problems(root: Folder) -> list[Remark]:
    """Folders that were not read, folders without an image that can be read, and other files by suffix."""
    remarks = [Remark(folder.place, folder.problem) for folder in root.walk() if folder.problem]
    files: Counter[str] = Counter()
    for folder in root.walk():
        if folder.image_count:
            files.update(dict(folder.others))
            empty = [(below.place, below.other_files()) for below in folder.folders if not below.image_count]
            remarks += [
                Remark(place, f"no image that can be read ({spell(others)})") for place, others in empty if others
            ]
    if files:
        remarks.append(Remark("", f"files that are no images: {spell(files)}"))
    return remarks


def spell(suffixes: Counter[str]) -> str:
    """Like `12 .txt, 1 .heic (to read them: pip install pillow-heif)`."""
    shown = [f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(8)]
    if more := len(suffixes) - len(shown):
        shown.append(f"{more} more suffixes")
    return ", ".join(shown) + "".join(f" ({hint})" for hint in sorted({_hint(suffix) for suffix in suffixes} - {""}))


def _hint(suffix: str) -> str:
    if suffix in METADATA:
        return f"{suffix} is not read: the classes are folders"
    if suffix in (".heic", ".heif"):
        return "to read .heic: pip install pillow-heif"
    return "unpack the archives" if suffix in (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z") else ""
