"""Which elements of which tensors can only be removed together.

A **label** names an element along the axes of a tensor. Labels that must be removed together are in one class. A
class can be frozen for a reason: then none of it is removed. Where a tensor has no label, the number there is negative:
-1, or `-2 - i` if it was frozen for reason `i`, so that the first cause is known wherever the tensor goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
NONE = -1


class Classes:
    """A union-find over labels, for whole arrays at once."""

    def __init__(self) -> None:
        self._parent: Labels = np.empty(0, np.int64)
        self._frozen: Labels = np.empty(0, np.int64)  # the code of the reason, or 0; right for roots only
        self._used = 0
        self._codes: dict[str, int] = {}
        #: Grows with each merge and each freeze.
        self.changes = 0

    @property
    def size(self) -> int:
        """The number of labels there are; the number of each class is smaller."""
        return self._used

    def fresh(self, count: int) -> Labels:
        """`count` labels, each in a class of its own."""
        first, self._used = self._used, self._used + count
        if self._used > len(self._parent):
            grown = max(self._used, 2 * len(self._parent))
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), grown)])
            self._frozen = np.concatenate([self._frozen, np.zeros(grown - len(self._frozen), np.int64)])
        return np.arange(first, self._used)

    def code(self, reason: str) -> int:
        """The number that stands for frozen labels of this reason."""
        return self._codes.setdefault(reason, -2 - len(self._codes))

    def reason(self, code: int) -> str:
        """The words of a code; empty for `NONE`."""
        return "" if code == NONE else list(self._codes)[-2 - code]

    def find(self, labels: Labels) -> Labels:
        """The class of each label, frozen or not; negative numbers stay."""
        found = labels.copy()
        places = np.nonzero(found >= 0)
        found[places] = self._roots(found[places])
        return found

    def resolve(self, labels: Labels) -> Labels:
        """The class of each label; the code of its reason if it is frozen."""
        found = labels.copy()
        places = np.nonzero(found >= 0)
        roots = self._roots(found[places])
        frozen = self._frozen[roots]
        found[places] = np.where(frozen < 0, frozen, roots)
        return found

    def merge(self, one: Labels, other: Labels) -> None:
        """Put pairs of labels, none of them negative, into one class each."""
        pairs = np.unique(self._roots(one.ravel()) * self._used + self._roots(other.ravel()))
        a, b = np.divmod(pairs, self._used)
        a, b = a[a != b], b[a != b]
        if not len(a):
            return
        touched = np.concatenate([a, b])
        codes = self._frozen[touched]
        self.changes += 1
        while len(a):
            np.minimum.at(self._parent, np.maximum(a, b), np.minimum(a, b))
            a, b = self._roots(a), self._roots(b)
            different = a != b
            a, b = a[different], b[different]
        frozen = codes < 0
        self._frozen[self._roots(touched[frozen])] = codes[frozen]

    def freeze(self, labels: Labels, code: int) -> None:
        """Freeze the classes of the labels that are not negative, and that are not frozen yet."""
        roots = np.unique(self._roots(labels[labels >= 0]))
        roots = roots[self._frozen[roots] == 0]
        if len(roots):
            self._frozen[roots] = code
            self.changes += 1

    def alone(self, labels: Labels) -> NDArray[np.bool_]:
        """Which labels have a class of their own."""
        sizes = np.bincount(self._roots(np.arange(self._used)), minlength=self._used)
        return np.asarray((labels >= 0) & (sizes[np.maximum(labels, 0)] == 1))

    def _roots(self, labels: Labels) -> Labels:
        roots = self._parent[labels]
        while True:
            further = self._parent[roots]
            if np.array_equal(further, roots):
                break
            roots = further
        self._parent[labels] = roots
        return roots


def varies(labels: Labels, axis: int) -> bool:
    """Whether elements along an axis have different labels. Resolve them first."""
    if labels.shape[axis] == 1 or not (labels >= 0).any():
        return False
    first = np.take(labels, [0], axis)
    return bool((labels != first).any())


def varying(labels: Labels) -> list[int]:
    """The axes along which labels differ."""
    return [axis for axis in range(labels.ndim) if varies(labels, axis)]


def collapsed(labels: Labels, zero: NDArray[np.bool_]) -> tuple[Labels, NDArray[np.bool_]]:
    """The same with a size of 1 on each axis along which nothing differs."""
    if not (labels >= 0).any():  # the reasons may differ: any of them is right
        ones = (1,) * labels.ndim
        return np.full(ones, labels.min() if labels.size else NONE), np.zeros(ones, np.bool_)
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            one, flag = np.take(labels, [0], axis), np.take(zero, [0], axis)
            if (labels == one).all() and (zero == flag).all():
                labels, zero = one, flag
    return labels, zero
