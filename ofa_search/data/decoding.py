"""From the bytes of an image file to pixels of one size."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise UsageError(f"reading images needs pillow: pip install 'ofa-profiler[train]' ({error})") from None

Pixels = NDArray[np.uint8]


class OtherSizeError(Exception):
    """An image is not of the size that was expected."""


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height as stored; the pixels are not looked at."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def decode(data: bytes, size: int, *, exactly: bool) -> Pixels:
    """RGB (3, size, size): turned as its EXIF says, its shorter side scaled to `size` (bilinear,
    antialiased), and cut at the centre. Transparency is dropped.

    Raises `OtherSizeError` if the image must be `exactly` of that size and is not, and whatever a damaged
    file makes Pillow raise.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.size != (size, size):
            if exactly:
                raise OtherSizeError
            image.draft("RGB", (2 * size, 2 * size))  # JPEG can be decoded smaller, and faster
        upright = image.format == "JPEG" and "exif" not in image.info
        pixels = _rgb(image if upright else ImageOps.exif_transpose(image))
    if pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits of grey, which Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
