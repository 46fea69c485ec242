"""Classifies images with a network exported by `ofa-search` or `ofa-train subnet`.

    python examples/classify.py out/search/cifar-mbv3-1ms.onnx photo.jpg another.png
    python examples/classify.py out/search/cifar-mbv3-1ms.onnx --folder images      (a folder per class: top-1)
    python examples/classify.py out/search/cifar-mbv3-1ms.tflite --parquet test.parquet  (columns img and label)

It needs numpy, pillow, and onnxruntime for ONNX files, ai-edge-litert and tflite for TFLite files (and pyarrow for a
parquet file). It imports nothing of this project, so it is also an example for programs on a device. The metadata of
the model file has all the information about the network: the fields in `CARD`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before onnxruntime is imported

SHOWN = 3
#: Field of the metadata of a model file -> meaning. The fields in `TEXTS` are plain text, all others are JSON.
CARD = {
    "space": "name of the search space",
    "architecture": "the network: resolution, depths, kernel sizes, expand ratios",
    "weights": "`trained`, or `untrained` (made-up weights)",
    "accuracy": "the predicted top-1 (`predicted`), or the measured `top1` per kind of images, and how it was obtained",
    "preprocessing": "how to convert an image to the input: see `Network.prepared`",
    "labels": "names of the classes in order, or null",
    "tool": "the command that wrote the file, and its version",
    "forms": "how layers are written in this file, by group of layers; {} for the plain way",
    "runtime_options": "settings of the runtime under which the latency table was measured, or null",
    "precision": "`int8`; missing for float32",
    "ranges": "int8: `calibrated`, or `made up` for ranges of tensors that are good for timing alone",
    # only for networks of a search:
    "predicted_accuracy": "top-1 in [0, 1], or null",
    "latency_ms": "predicted latency in milliseconds, by name of the latency table",
    "budget_ms": "latency budget in milliseconds, by name of the latency table",
}
TEXTS = ("space", "tool", "weights", "precision", "ranges")
#: From an input (1, 3, R, R) to the logits (classes,).
Run = Callable[[np.ndarray], np.ndarray]


class Network:
    """An exported network. `labels` are the names of the classes, or their numbers if the file has no names.

    Raises `ValueError` if the runtime cannot load the file, and `KeyError` if its metadata is incomplete.
    """

    def __init__(self, path: Path) -> None:
        load = load_tflite if path.suffix == ".tflite" else load_onnx
        try:
            self.logits, stored = load(path)
        except ImportError:
            raise
        except Exception as error:  # the runtimes have their own exception classes
            raise ValueError(f"cannot run {path}: {str(error).splitlines()[0]}") from error
        card = {name: text if name in TEXTS else json.loads(text) for name, text in stored.items() if name in CARD}
        self.preprocessing, self.weights, self.accuracy = card["preprocessing"], card["weights"], card["accuracy"]
        self.labels: list[str] | None = card["labels"]

    def prepared(self, image: Image.Image) -> np.ndarray:
        """Crop an image to its centre square, resize, scale and normalise it: -> (1, 3, R, R), float32."""
        steps = self.preprocessing
        size = (steps["resolution"], steps["resolution"])
        # Pillow's resize is antialiased.
        square = ImageOps.fit(upright(image).convert("RGB"), size, Image.Resampling.BILINEAR)
        pixels = np.asarray(square, dtype=np.float32)
        if steps["channels"] == "BGR":
            pixels = pixels[..., ::-1]
        low, high = steps["range"]
        scaled = low + pixels * ((high - low) / 255)
        normalised = (scaled - np.float32(steps["mean"])) / np.float32(steps["std"])
        return np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)

    def probabilities(self, image: Image.Image) -> np.ndarray:
        """The probability of each class, (classes,)."""
        logits = self.logits(self.prepared(image))
        odds = np.exp(logits - logits.max())
        return np.asarray(odds / odds.sum())


def load_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    """What runs an ONNX file with onnxruntime, and the metadata of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0][0], session.get_modelmeta().custom_metadata_map


def load_tflite(path: Path) -> tuple[Run, dict[str, str]]:
    """What runs a TFLite file with LiteRT, and the metadata of the file."""
    import tflite  # only the schema of the files
    from ai_edge_litert.interpreter import Interpreter

    data = path.read_bytes()
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], x.transpose(0, 2, 3, 1))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output["index"])[0])

    model = tflite.Model.GetRootAs(data)
    entries = map(model.Metadata, range(model.MetadataLength()))
    return run, {e.Name().decode(): model.Buffers(e.Buffer()).DataAsNumpy().tobytes().decode() for e in entries}


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF says, if it can be read. 16 bits of grey become 8."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF makes Pillow raise errors of many kinds; the pixels are fine
        return image


def in_folder(folder: Path, labels: list[str]) -> Iterator[tuple[Image.Image, int]]:
    """Images and the numbers of their classes, for a folder per class. Raises `ValueError` for an unknown class."""
    suffixes = Image.registered_extensions()
    for path in sorted(p for p in folder.glob("[!.]*/[!.]*") if p.suffix.lower() in suffixes):
        if path.parent.name not in labels:
            raise ValueError(f"{path.parent}: the network has no class of this name; choose from {', '.join(labels)}")
        with Image.open(path) as image:
            yield image, labels.index(path.parent.name)


def in_parquet(path: Path, labels: Sequence[str] = ()) -> Iterator[tuple[Image.Image, int]]:
    """Images and the numbers of their classes, from the columns `img` or `image`, and `label` or `labels`.

    Raises `ValueError` for other columns and unknown classes.
    """
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    found = table.column_names
    columns = [next((n for n in wanted if n in found), "") for wanted in (("img", "image"), ("label", "labels"))]
    if not all(columns):
        raise ValueError(f"{path}: no columns img (or image) and label (or labels); it has {', '.join(found)}")
    for file, label in zip(*(table[name].to_pylist() for name in columns), strict=True):
        number = labels.index(label) if label in labels else label
        if not isinstance(number, int):
            raise ValueError(f"{path}: the network has no class {label!r}; choose from {', '.join(labels)}")
        with Image.open(io.BytesIO(file["bytes"])) as image:
            yield image, number


def top1(network: Network, images: Iterator[tuple[Image.Image, int]]) -> None:
    """Print the accuracy on these images, and the accuracy that the search predicted. Raises `ValueError`."""
    right = [int(network.probabilities(image).argmax()) == label for image, label in images]
    if not right:
        raise ValueError("no images found")
    print(f"top-1: {np.mean(right):.2%} of {len(right)} images")
    if "predicted" in network.accuracy:
        predicted = network.accuracy["predicted"]
        print("the search predicted no accuracy" if predicted is None else f"predicted by the search: {predicted:.2%}")
    else:
        for kind, measured in network.accuracy.items():
            print(f"measured after training ({kind}): {measured['top1']:.2%} of {measured['images']} images")


def main() -> int:
    """Parse the arguments and classify."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("network", type=Path, help="an exported ONNX or TFLite file")
    parser.add_argument("images", type=Path, nargs="*", help="image files to classify")
    parser.add_argument("--folder", type=Path, help="labelled images, a folder per class: print top-1")
    parser.add_argument("--parquet", type=Path, help="labelled images, columns img and label: print top-1")
    arguments = parser.parse_args()
    try:
        network = Network(arguments.network)
        if network.weights != "trained":
            print("warning: the weights of this network are untrained; the results mean nothing", file=sys.stderr)
        for path in arguments.images:
            with Image.open(path) as image:
                found = network.probabilities(image)
            best = np.argsort(-found)[:SHOWN]
            names = network.labels or list(map(str, range(len(found))))
            print(f"{path}: " + ", ".join(f"{names[i]} {found[i]:.1%}" for i in best))
        if arguments.folder is not None:
            top1(network, in_folder(arguments.folder, network.labels or []))
        if arguments.parquet is not None:
            top1(network, in_parquet(arguments.parquet, network.labels or []))
    except KeyError as missing:
        print(
            f"{arguments.network}: its metadata lacks {missing}; give a model of ofa-search or ofa-train",
            file=sys.stderr,
        )
        return 2
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
