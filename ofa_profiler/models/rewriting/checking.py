"""Whether two networks compute the same, up to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ofa_profiler.models.base import Array, ModelInput

#: The largest difference, as a fraction of the largest output.
LARGEST_DIFFERENCE = 1e-5
_SEEDS = (1, 2, 3)

Outputs = Mapping[str, Array]


def cases(inputs: Sequence[ModelInput], feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The given inputs, and three times random ones like them.

    Random floats lie within the span of the given ones. Integers are random where their valid range is known.
    """
    return [dict(feeds), *({each.name: _random(each, feeds[each.name], seed) for each in inputs} for seed in _SEEDS)]


def _random(each: ModelInput, like: Array, seed: int) -> Array:
    rng = np.random.default_rng([seed, len(each.name), like.size])
    if like.dtype.kind == "f" and like.size and np.isfinite(like).all():
        low, high = float(like.min()), float(like.max())
        return rng.uniform(*((low, high) if low < high else (-1.0, 1.0)), like.shape).astype(like.dtype)
    limits = each.range
    if limits is None and like.dtype.kind in "iu" and like.dtype.itemsize == 1:
        limits = (int(np.iinfo(like.dtype).min), int(np.iinfo(like.dtype).max) + 1)
    return like if limits is None else rng.integers(*limits, like.shape, dtype=np.int64).astype(like.dtype)


def difference(pairs: Iterable[tuple[Outputs, Outputs]]) -> float:
    """The largest difference of any output, as a fraction of its largest value in all cases.

    `pairs` are (outputs of the original, of the other) for each case. Integers must be equal. Infinite if an output is
    missing or has another shape or type, or if numbers that are not finite differ.
    """
    found = list(pairs)
    largest = 0.0
    for name in dict.fromkeys(name for plain, other in found for name in (*plain, *other)):
        if any(name not in plain or name not in other for plain, other in found):
            return float("inf")
        errors = [_error(plain[name], other[name]) for plain, other in found]
        sizes = [_size(plain[name]) for plain, _ in found]
        worst = max(errors)
        if worst > 0:
            largest = max(largest, worst / max(sizes) if max(sizes) > 0 else float("inf"))
    return largest


def _error(plain: Array, other: Array) -> float:
    if plain.shape != other.shape or plain.dtype != other.dtype:
        return float("inf")
    if plain.dtype.kind != "f":
        return 0.0 if np.array_equal(plain, other) else float("inf")
    finite = np.isfinite(plain)
    if not np.array_equal(plain[~finite], other[~finite], equal_nan=True) or not np.isfinite(other[finite]).all():
        return float("inf")
    return float(np.abs(plain[finite].astype(np.float64) - other[finite]).max(initial=0.0))


def _size(plain: Array) -> float:
    if plain.dtype.kind != "f":
        return 1.0
    return float(np.abs(plain[np.isfinite(plain)].astype(np.float64)).max(initial=0.0))
