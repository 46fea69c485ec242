"""CIFAR-10 without names: files that pandas wrote have numbers for its classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIZE = 32
#: The mean red, green and blue of the training images of each class, in [0, 255].
_MEANS = (
    (134.0, 142.8, 150.1),
    (120.1, 115.9, 114.0),
    (124.7, 125.3, 108.1),
    (126.3, 116.4, 106.0),
    (120.2, 118.6, 96.5),
    (127.4, 118.5, 106.2),
    (119.8, 111.8, 88.1),
    (128.0, 122.3, 106.3),
    (125.0, 134.0, 141.4),
    (127.1, 123.7, 121.8),
)
#: From so many images of a class on, its means tell; those of the test images (1000 of a class) differ by up to 4.4.
_LEAST_OF_A_CLASS = 500
_TOLERANCE = 6.0


def is_cifar10(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> bool:
    """Whether these are images of CIFAR-10, labelled in its order: by number, size, and the colours of each class."""
    counts = np.bincount(labels)
    if pixels.shape[-1] != _SIZE or len(counts) != len(_MEANS) or counts.min() < _LEAST_OF_A_CLASS:
        return False
    return all(
        np.abs(pixels[labels == label].mean(axis=(0, 2, 3)) - means).max() < _TOLERANCE
        for label, means in enumerate(_MEANS)
    )
