"""A new kind of choice is a field of an architecture, its entry, and genes: shown on a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

#: Text of `networks/architecture.py` -> the same with attention heads per block, and a width of the whole network.
CHANGES = {
    "    width_mult: float | None = None\n": "    width_mult: float | None = None\n    heads: tuple[int, ...] = ()\n",
    "    stem: Stem | None = None\n": "    stem: Stem | None = None\n    width: int | None = None\n",
    '"expand_ratio": Field("expand_ratios")}': '"expand_ratio": Field("expand_ratios"), "heads": Field("heads", True)}',
    'NETWORK_FIELDS = {"resolution"': 'NETWORK_FIELDS = {"width": Field("width", True), "resolution"',
}

CODE = """
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.spaces import Gene, SearchSpace, Slot, register_space
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.genes import stage_genes
from ofa_search import AccuracyPredictor
from ofa_search.predictor import Features
from ofa_search.training.schedule import KINDS, Phase


@dataclass(frozen=True)
class Transformer(SearchSpace):
    name: str = "transformer"
    n_classes: int = 10

    @cached_property
    def genes(self):
        return (Gene("width", (8, 16)), *stage_genes(0, 1, (2, 3), {"heads": (3, 6, 12)}))

    @cached_property
    def slots(self):
        def build(block):
            return lambda width, depth, heads: block_op("mbconv", (1, 1, width), (1, 1, width), mid_channels=heads) \
                if block < depth else None

        depth = self.position("depth", stage=0)
        return tuple(
            Slot(f"block{b}", (self.position("width"), depth, self.position("heads", stage=0, block=b)), build(b))
            for b in range(3)
        )


space = Transformer()
register_space(space)
genomes = space.sample_genomes(np.random.default_rng(0), 50)
architectures = space.decode(genomes)
assert (space.encode(architectures) == genomes).all()
assert space.largest.to_json() == {
    "space": "transformer", "width": 16, "stages": [{"depth": 3, "heads": [12, 12, 12]}]
}
for architecture in architectures:
    assert Architecture.from_json(architecture.to_json()) == architecture
for change, message in (
    ({"width": 9}, "width 9 is not one of [8, 16]"),
    ({"stages": [{"depth": 2, "heads": [3, 5]}]}, "stage 0: heads 5 is not one of [3, 6, 12]"),
    ({"stages": [{"depth": 2, "kernel_sizes": [3, 5]}]}, "stage 0: this space has no choice of 'kernel_sizes'"),
):
    try:
        Architecture.from_json(space.largest.to_json() | change)
    except UsageError as error:
        assert str(error) == message, error
    else:
        raise AssertionError(message)
cost = AdditiveCost.from_ops(space, lambda op: op.macs)
assert cost.minimum()[0] == space.macs(space.smallest) < cost.maximum()[0] == space.macs(space.largest)
assert Features.of(space).kinds == ("width", "heads")
predictor = AccuracyPredictor.fit(space, architectures, [0.5] * 50, hidden=(4,))
assert predictor.predict(architectures).shape == (50,)
assert {"heads", "width"} <= set(KINDS)
(largest,) = Phase("x", 1.0, open={"heads": 1}, largest=True).subnets(space, np.random.default_rng(0))
assert largest == space.largest
known = get_space("cifar-mbv3")  # the spaces before are as they were
assert "heads" not in str(known.largest.to_json())
assert (known.encode([known.largest]) == [[len(gene.choices) - 1 for gene in known.genes]]).all()
"""


def test_attention_heads_are_a_field_and_an_entry(tmp_path: Path) -> None:
    for package in ("ofa_profiler", "ofa_search", "device_agents"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    path = tmp_path / "ofa_profiler" / "networks" / "architecture.py"
    text = path.read_text(encoding="utf-8")
    for before, after in CHANGES.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
