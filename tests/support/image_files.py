"""Image files and parquet files of images, written by tests."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (10, 40, 220)


def encoded(size: tuple[int, int] = (32, 32), colour: tuple[int, ...] = RED, kind: str = "png") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, kind)
    return target.getvalue()


def write_parquet(path: Path, images: list[bytes | None], labels: list[object] | None, **how: object) -> Path:
    """Images (None: only a path) and labels, in columns as Hugging Face writes them."""
    import pyarrow as pa
    from pyarrow import parquet

    column, image_column = str(how.get("column", "label")), str(how.get("image_column", "img"))
    structs = [{"bytes": image, "path": "/home/me/1.jpg" if image is None else None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image_column: pa.array(structs, kind)} | ({} if labels is None else {column: labels})
    table = pa.table(columns)
    features = {image_column: {"_type": "Image"}}
    if names := how.get("names"):
        features |= {column: {"names": names, "_type": "ClassLabel"}}
    if names or how.get("features"):
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def write_images(root: Path, *places: str, size: tuple[int, int] = (32, 32)) -> Path:
    """A small image at each place below `root`; other suffixes get some text."""
    kinds = {".jpg": "jpeg", ".jpeg": "jpeg", ".jfif": "jpeg", ".tif": "tiff"}
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = kinds.get(path.suffix.lower(), path.suffix.lower().removeprefix("."))
        path.write_bytes(encoded(size, kind=kind) if f".{kind}" in Image.registered_extensions() else b"no image")
    return root


def write_shapes(path: Path, count: int, seed: int) -> Path:
    """A disc, a square or a cross of some colour on noise; the label says which."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32] - 16
    shapes = (
        rows**2 + columns**2 < 90,
        np.maximum(abs(rows), abs(columns)) < 8,
        np.minimum(abs(rows), abs(columns)) < 3,
    )
    images, labels = [], rng.integers(0, 3, count)
    for label in labels:
        pixels = rng.integers(0, 90, (32, 32, 3))
        shape = np.roll(shapes[label], rng.integers(-4, 5, 2), (0, 1))
        pixels[shape] = rng.integers(120, 256, 3)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
        images.append({"bytes": file.getvalue(), "path": None})
    parquet.write_table(pa.table({"img": images, "label": labels}), path)
    return path
