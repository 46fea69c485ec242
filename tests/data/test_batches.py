"""What training does to images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_profiler.spaces import get_space
from ofa_search.data.batches import augment, prepare


class Drawn:
    """Numbers as if they had been drawn at random."""

    def __init__(self, mirrored: list[bool], rows: list[int], columns: list[int]) -> None:
        self.mirrored, self.offsets = np.array(mirrored), np.array([rows, columns])

    def random(self, count: int) -> np.ndarray:
        assert count == len(self.mirrored)
        return np.where(self.mirrored, 0.0, 1.0)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        assert low <= self.offsets.min()
        assert self.offsets.max() < high
        return self.offsets.reshape(shape)


def pixels(count: int, size: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def test_small_images_are_moved_mirrored_and_filled_with_their_own_reflection() -> None:
    images = pixels(5, 32)
    rows, columns, mirrored = [0, -4, 4, 1, 0], [0, 4, -2, -3, 0], [False, False, True, True, True]
    moved = augment(images, Drawn(mirrored, rows, columns)).numpy()  # type: ignore[arg-type]
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    for i, (row, column, mirror) in enumerate(zip(rows, columns, mirrored, strict=True)):
        expected = padded[i, :, 4 + row : 36 + row, 4 + column : 36 + column]
        np.testing.assert_array_equal(moved[i], expected[:, :, ::-1] if mirror else expected)


@pytest.mark.parametrize("size", [24, 32, 64, 96])
def test_nothing_comes_into_images_that_was_not_in_them(size: int) -> None:
    """Otherwise networks learn to rely on it (black borders cost 5 points)."""
    grey = torch.full((16, 3, size, size), 131, dtype=torch.uint8)
    for seed in range(3):
        assert torch.equal(augment(grey, np.random.default_rng(seed)), grey)


def test_the_same_numbers_give_the_same_images() -> None:
    images = pixels(8, 32)
    one, other, third = (augment(images, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_inputs_are_what_the_space_says() -> None:
    preprocessing = get_space("cifar-mbv3").preprocessing
    images = pixels(2, 32)
    expected = (images.numpy() / 255.0 - np.reshape(preprocessing.mean, (3, 1, 1))) / np.reshape(
        preprocessing.std, (3, 1, 1)
    )
    np.testing.assert_allclose(prepare(images, 32, preprocessing).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert prepare(images, 24, preprocessing).shape == (2, 3, 24, 24)
