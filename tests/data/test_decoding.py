"""Image files as they are found: broken EXIF, many formats, and damage that is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from support.image_files import RED, encoded, write_images

from ofa_profiler.errors import InputFileError
from ofa_search.data.decoding import decode, readable_suffixes, reason
from ofa_search.data.images import Images, load_images

Load = Callable[..., Images]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda path, *args, **how: load_images(path, *args, cache=tmp_path / "cache", **how)


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **how)
    return target.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """Red at the left, blue at the right."""
    image = Image.new("RGB", (64, 64), RED)
    image.paste((10, 40, 220), (32, 0, 64, 64))
    return image.convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(kind: bytes, data: bytes, *, behind: bool = False) -> bytes:
    """A PNG with one more chunk, before or behind its pixels."""
    whole = saved(halves(), "png")
    place = whole.index(b"IEND") - 4 if behind else whole.index(b"IDAT") - 4
    return whole[:place] + chunk(kind, data) + whole[place:]


# --- EXIF -------------------------------------------------------------------------------------------------

_BROKEN = [
    b"",
    b"\x00\x00\x11\x22 no TIFF",
    b"Exif\x00\x00",
    b"MM\x00*\x00\x00\xff\xff",
    b"II*\x00\x08\x00\x00\x00\xff\xff",
]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("exif", _BROKEN)
def test_pixels_do_not_depend_on_broken_exif(exif: bytes, behind: bool) -> None:
    expected = decode(saved(halves(), "png"), 64, exactly=False)
    assert (decode(png_with(b"eXIf", exif, behind=behind), 64, exactly=False) == expected).all()
    jpeg = decode(saved(halves(), "jpeg"), 64, exactly=False)
    assert (decode(saved(halves(), "jpeg", exif=b"Exif\x00\x00" + exif), 64, exactly=False) == jpeg).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_exif_leaves_the_pixels(exif: bytes, behind: bool) -> None:
    pixels = decode(png_with(b"eXIf", exif, behind=behind), 64, exactly=False)
    assert sorted(np.unique(pixels).tolist()) == sorted({*RED, 10, 40, 220})


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_a_valid_orientation_is_applied(kind: str) -> None:
    for orientation, first in ((1, RED), (3, (10, 40, 220)), (2, (10, 40, 220)), (4, RED)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        corner = decode(saved(halves(), kind, exif=exif), 64, exactly=False)[:, 4, 4]
        assert np.abs(corner.astype(int) - first).max() < 12, (kind, orientation)
    for orientation in (5, 6, 7, 8):  # a quarter turn: one colour above the other
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = decode(saved(halves(), kind, exif=exif), 64, exactly=False).astype(int)
        assert np.abs(pixels[:, 4, 4] - pixels[:, 4, 60]).max() < 12
        assert np.abs(pixels[:, 4, 4] - pixels[:, 60, 4]).max() > 100


# --- modes and formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_of_grey_are_scaled(kind: str) -> None:
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    pixels = decode(saved(Image.fromarray(ramp), kind), 64, exactly=False)
    assert (pixels[0] == ramp >> 8).all()


def test_32_bits_hold_16_or_8() -> None:
    """Pillow before 10.3 gives 16-bit PNG as 32-bit numbers."""
    values = np.full((8, 8), 0x7F12, dtype=np.int32)
    assert (decode(saved(Image.fromarray(values), "tiff"), 8, exactly=True) == 0x7F).all()
    assert (decode(saved(Image.fromarray(values >> 8), "tiff"), 8, exactly=True) == 0x7F).all()
    with pytest.raises(ValueError, match="more than 16 bits"):
        decode(saved(Image.fromarray(values * 1000), "tiff"), 8, exactly=True)
    with pytest.raises(ValueError, match="floating-point"):
        decode(saved(Image.fromarray(values.astype(np.float32)), "tiff"), 8, exactly=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGB"])
def test_every_mode_of_png_is_read(mode: str) -> None:
    assert decode(saved(halves(mode), "png"), 32, exactly=False).shape == (3, 32, 32)


def test_cmyk_and_transparent_palettes_keep_their_colours() -> None:
    palette = saved(halves("P"), "gif", transparency=0)
    for data in (saved(halves("CMYK"), "jpeg"), saved(halves("CMYK"), "tiff"), palette):
        pixels = decode(data, 64, exactly=False).astype(int)
        assert pixels[0, 4, 4] > 150
        assert pixels[2, 4, 60] > 150


def test_suffixes_of_all_readable_formats_count_in_any_case(tmp_path: Path, load: Load) -> None:
    root = write_images(
        tmp_path / "photos", *(f"a/1{suffix}" for suffix in (".jfif", ".tif", ".gif")), "b/1.JPG", "b/2.PNG", "b/3.Tiff"
    )
    assert load(root, 32).labels.tolist() == [0, 0, 0, 1, 1, 1]
    if "avif" in features.modules and features.check("avif"):
        (root / "a" / "1.avif").write_bytes(encoded(kind="avif"))
        assert len(load(root, 32)) == 7
    assert {".jfif", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".ppm"} <= readable_suffixes()


def test_a_class_that_cannot_be_read_is_named(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png", "b/2.HEIC", "c/1.svg", "c/2.svg")
    lines: list[str] = []
    assert load(root, tell=lines.append).classes == ("a", "b")
    assert "  left out: c: no image that can be read (2 .svg)" in lines
    if ".heic" not in readable_suffixes():
        assert lines[-1].startswith("  left out: files that are no images: 1 .heic (to read .heic: pip install")


# --- damage -----------------------------------------------------------------------------------------------


def huge_png() -> bytes:
    header = struct.pack(">IIBBBBB", 20000, 10000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (huge_png(), "too large (more than 178 megapixels)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: run `git lfs pull` to get the file"),
        (b"<html><body>404", "a web page"),
        (bytes(5000), "nothing but zero bytes"),
        (b"hello", "not an image, or damaged (unknown format)"),
        (encoded((200, 200))[:-60], "not an image, or damaged ("),
        (encoded((200, 200), kind="jpeg")[:-60], "not an image, or damaged (image file is truncated"),
    ],
)
def test_damage_has_a_reason(data: bytes, why: str) -> None:
    text = ""
    try:
        decode(data, 32, exactly=False)
    except Exception as error:  # Pillow raises many kinds
        text = reason(data, error)
    assert text.startswith(why)
    assert "0x" not in text
    assert "\n" not in text


def test_all_damaged_images_are_named_at_once(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "pets", *(f"{name}/{n}.jpg" for name in ("cat", "dog") for n in range(4)))
    (root / "cat" / "0.jpg").write_bytes(b"")
    (root / "dog" / "2.jpg").write_bytes(b"no image")
    (root / "dog" / "3.jpg").unlink()
    (root / "dog" / "3.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputFileError) as caught:
        load(root, 32)
    text = str(caught.value)
    assert "3 of 8 images cannot be used: " in text
    for part in (
        "cat/0.jpg: empty; ",
        "dog/2.jpg: not an image",
        "dog/3.jpg: cannot be read (No such file",
        "--skip-damaged",
    ):
        assert part in text
    for _ in range(2):  # decoded, and from the cache
        lines: list[str] = []
        images = load(root, 32, skip_damaged=True, tell=lines.append)
        assert images.labels.tolist() == [0, 0, 0, 1, 1]
        assert "  left out: 3 damaged images" in lines
        assert images.pixels.float().mean() > 60  # none of them is black
    for n in range(4):
        (root / "dog" / f"{n}.jpg").unlink()
        (root / "dog" / f"{n}.jpg").write_bytes(b"")
    with pytest.raises(InputFileError, match="all images of the class 'dog' are damaged"):
        load(root, 32, skip_damaged=True)
    for n in range(4):
        (root / "cat" / f"{n}.jpg").write_bytes(b"")
    with pytest.raises(InputFileError, match="8 of 8 images cannot be used"):
        load(root, 32, skip_damaged=True)


def test_of_very_many_damaged_images_some_are_named(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "pets", "cat/a.png", "dog/a.png")
    for n in range(30):
        (root / "dog" / f"{n}.png").write_bytes(b"")
    with pytest.raises(InputFileError, match=r"30 of 32 images cannot be used: .*; and 10 more; repair"):
        load(root, 32)
