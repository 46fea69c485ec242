"""From the bytes of an image file to pixels of one size."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_search.data.pointers import what_is

try:
    from PIL import Image, ImageOps, UnidentifiedImageError, features
except ImportError as error:
    raise UsageError(f"reading images needs pillow: pip install 'ofa-profiler[train]' ({error})") from None

Pixels = NDArray[np.uint8]

# Large images and odd metadata are no reason to print a line for each.
warnings.filterwarnings("ignore", module=r"PIL\.")

_SUFFIXES = (
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_ORIENTATION = 0x0112
#: The value of the EXIF orientation -> how to turn the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class OtherSizeError(Exception):
    """An image is not of the size that was expected."""


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of the files that can be decoded here."""
    suffixes = set(_SUFFIXES)
    if "avif" in features.modules and features.check("avif"):  # Pillow 11.3
        suffixes |= {".avif", ".avifs"}
    if features.check("jpg_2000"):
        suffixes |= {".jp2", ".j2k"}
    with contextlib.suppress(ImportError):
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        pillow_heif.register_heif_opener()
        suffixes |= {".heic", ".heif"}
    return frozenset(suffixes)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height as stored; the pixels are not looked at."""
    with _opened(data) as image:
        return image.size


def decode(data: bytes, size: int, *, exactly: bool) -> Pixels:
    """RGB (3, size, size): turned as its EXIF says, its shorter side scaled to `size` (bilinear,
    antialiased), and cut at the centre. Transparency is dropped.

    Raises `OtherSizeError` if the image must be `exactly` of that size and is not, and whatever a damaged
    file makes Pillow raise; `reason` says it in words.
    """
    with _opened(data) as image:
        if image.size != (size, size):
            if exactly:
                raise OtherSizeError
            image.draft("RGB", (2 * size, 2 * size))  # JPEG can be decoded smaller, and faster
        image.load()  # before EXIF, which some formats store behind the pixels
        turn = None if image.format == "JPEG" and "exif" not in image.info else _UPRIGHT.get(_orientation(image))
        pixels = _rgb(image)
    if turn is not None:
        pixels = pixels.transpose(turn)
    if pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def reason(data: bytes | None, error: Exception) -> str:
    """Why an image with these bytes (None: they could not be read) was not decoded, for people."""
    if data is None and isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    if isinstance(error, Image.DecompressionBombError):
        return "too large (more than 178 megapixels)"
    if data is not None and (known := what_is(data)):
        return known
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged (unknown format)"
    return f"not an image, or damaged ({' '.join(str(error).split())[:100]})"


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _orientation(image: Image.Image) -> int:
    """What EXIF says; 1 (upright) where it cannot be read, because the pixels do not depend on it."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF makes Pillow raise errors of many kinds
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bits of grey, which Pillow would clip
        image = Image.fromarray(_eight_bits(np.asarray(image), own_range=image.mode == "I" and image.format == "TIFF"))
    elif image.mode == "F":
        raise ValueError("pixels are floating-point numbers; convert them to 8 or 16 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(grey: NDArray[np.integer], *, own_range: bool) -> Pixels:
    """The upper 8 of 16 bits. With `own_range`, numbers below 256 have 8 bits."""
    if grey.size and (grey.min() < 0 or grey.max() > np.iinfo(np.uint16).max):
        raise ValueError("pixels have more than 16 bits; convert them to 8 or 16 bits")
    if own_range and grey.size and grey.max() <= np.iinfo(np.uint8).max:
        return grey.astype(np.uint8)
    return (grey >> 8).astype(np.uint8)
