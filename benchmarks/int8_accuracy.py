"""What int8 costs in accuracy: `python benchmarks/int8_accuracy.py --test TEST --out DIR [--train TRAIN]`.

Exports the smallest, a middle, the largest and random subnets of the included supernet of cifar-mbv3, in fp32 and int8,
in all forms of the runtime. Then `examples/classify.py`, which knows only the file, classifies test images one at a
time. Prints the top-1 of both as a Markdown table, and the share of images that both put in the same class.

`--ranges` says where the ranges of int8 come from: `table` (in the file of the supernet), or `minmax`, `percentile`,
`mse` (of each network, on 256 training images of `--train`).

DIR keeps the models, and a line per model in `accuracy.jsonl`. Run again, the same command continues from there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ofa_profiler import Architecture, get_space
from ofa_profiler.export import export_network, get_exporter
from ofa_profiler.export.calibration import METHODS, calibrate
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.protocol.encodings import ENCODINGS
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import get_runtime
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.evaluation.subnets import representatives
from ofa_search.results.model_card import TRAINED, ModelCard
from ofa_search.supernet.checkpoint import read_checkpoint

SPACE = "cifar-mbv3"
TABLE = "table"
CALIBRATION_IMAGES, SEED = 128, 14


def load_example() -> ModuleType:
    """The module `examples/classify.py`."""
    path = Path(__file__).resolve().parents[1] / "examples" / "classify.py"
    spec = importlib.util.spec_from_file_location("classify", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Variant:
    """A way to export a network. `ranges` is empty for fp32."""

    target: Target
    ranges: str = ""

    @property
    def name(self) -> str:
        """Such as `litert-int8-table`."""
        return "-".join(filter(None, (self.target.runtime, self.target.precision, self.ranges)))


class Networks:
    """Subnets of the supernet, and their models."""

    def __init__(self, subnets: int, training: Path | None, out: Path) -> None:
        path = shipped_supernet(SPACE)
        assert path is not None
        self.checkpoint, self.training, self.out = read_checkpoint(path), training, out
        self.space = get_space(SPACE)
        rng = np.random.default_rng(SEED)
        drawn = {f"random-{i}": self.space.sample(rng) for i in range(subnets)}
        self.architectures = {**representatives(self.space), **drawn}

    def export(self, name: str, variant: Variant) -> Path:
        """Write the model of a network."""
        architecture, target = self.architectures[name], variant.target
        weights, graph = self.checkpoint.weights(architecture), as_graph(self.space.layout(architecture))
        get_exporter(target)  # registers its forms
        return export_network(
            self.space,
            architecture,
            weights,
            self.out / f"{name}-{variant.name}{get_runtime(target.runtime).suffix}",
            target,
            metadata=ModelCard("benchmark", architecture, TRAINED, {}).metadata(),
            forms=Forms({group: names[0] for group, names in candidates(target, graph).items()}),
            ranges=self._ranges(variant.ranges, architecture, graph, weights),
        )

    def _ranges(self, source: str, architecture: Architecture, graph: Graph, weights: Weights) -> Ranges | None:
        if not source:
            return None
        if source == TABLE:
            return self.checkpoint.ranges
        batches = self._batches(architecture.resolution)
        return calibrate(graph, weights, lambda: batches, method=source)

    @cached_property
    def _images(self) -> Any:
        from ofa_search.data.images import load_images

        assert self.training is not None, "checked with the arguments"
        images = load_images(self.training, max(self.space.valid_resolutions))
        return images.take(np.random.default_rng(SEED).choice(len(images), CALIBRATION_IMAGES, replace=False))

    def _batches(self, resolution: int | None) -> list[np.ndarray]:
        from ofa_search.data.batches import prepare

        return [prepare(pixels, resolution, self.space.preprocessing).numpy() for pixels, _ in self._images.batches(64)]


class Journal:
    """The classes that each model gave, by name of the network and of the variant, in a file."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        self.classes = {(e["network"], e["variant"]): e["classes"] for e in entries if len(e["classes"]) == count}

    def add(self, network: str, variant: str, classes: list[int]) -> None:
        """Append a line."""
        self.classes[network, variant] = classes
        with self.path.open("a") as file:
            file.write(json.dumps({"network": network, "variant": variant, "classes": classes}) + "\n")


def classes_of(network: Any, images: list[Any], prepared: dict[str, list[np.ndarray]]) -> list[int]:
    """The class of each image. Images are prepared once for each kind of preprocessing."""
    key = json.dumps(network.preprocessing)
    if key not in prepared:
        prepared[key] = [network.prepared(image) for image in images]
    return [int(network.logits(x).argmax()) for x in prepared[key]]


def rows_of(journal: Journal, labels: np.ndarray, names: list[str], pair: tuple[Variant, Variant]) -> list[str]:
    """The Markdown table of one int8 variant beside its fp32 model."""
    rows = [f"| {pair[1].name} | fp32 | int8 | lost | same class |", "| --- | ---: | ---: | ---: | ---: |"]
    lost = []
    for name in names:
        old, new = (np.array(journal.classes[name, variant.name]) for variant in pair)
        exact, quantized = (float((classes == labels).mean()) for classes in (old, new))
        lost.append(100 * (exact - quantized))
        rows.append(f"| {name} | {exact:.2%} | {quantized:.2%} | {lost[-1]:+.2f} | {float((old == new).mean()):.2%} |")
    return [*rows, f"| mean, worst | | | {np.mean(lost):+.2f}, {max(lost):+.2f} | |"]


def variants_of(runtime: str, encoding: str, ranges: list[str]) -> list[tuple[Variant, Variant]]:
    """fp32 and int8, for each source of ranges."""
    exporter = get_exporter(Target(runtime))
    target = Target(runtime, "int8", encoding=encoding if exporter.encodings else "")
    return [(Variant(Target(runtime)), Variant(target, source)) for source in ranges]


def main() -> None:
    """Export, classify and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", type=Path, required=True, help="a parquet file of labelled images")
    parser.add_argument("--train", type=Path, help="a parquet file of training images, for ranges measured on images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10000, help="how many test images (default: %(default)s)")
    parser.add_argument("--subnets", type=int, default=20, help="random subnets (default: %(default)s)")
    parser.add_argument("--runtime", nargs="+", default=["litert", "onnxruntime"])
    parser.add_argument("--encoding", default="u8s8", choices=ENCODINGS)
    parser.add_argument("--ranges", nargs="+", default=[TABLE], choices=(TABLE, *METHODS))
    arguments = parser.parse_args()
    if set(arguments.ranges) != {TABLE} and arguments.train is None:
        parser.error("give --train for ranges measured on images")
    arguments.out.mkdir(parents=True, exist_ok=True)
    example = load_example()
    found = [(image.copy(), label) for image, label in example.in_parquet(arguments.test)][: arguments.images]
    images, labels = [image for image, _ in found], np.array([label for _, label in found])
    networks = Networks(arguments.subnets, arguments.train, arguments.out)
    journal = Journal(arguments.out / "accuracy.jsonl", len(images))
    prepared: dict[str, list[np.ndarray]] = {}
    for runtime in arguments.runtime:
        for pair in variants_of(runtime, arguments.encoding, arguments.ranges):
            for name in networks.architectures:
                for variant in pair:
                    if (name, variant.name) not in journal.classes:
                        network = example.Network(networks.export(name, variant))
                        journal.add(name, variant.name, classes_of(network, images, prepared))
            print("\n".join(rows_of(journal, labels, list(networks.architectures), pair)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
