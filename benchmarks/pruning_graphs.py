"""What can be removed from networks of all families: our groups beside those of torch-pruning.

    python benchmarks/pruning_graphs.py                          # all, a line each; minutes
    python benchmarks/pruning_graphs.py resnet18 levit_128s      # some of `tests/support/pruning_nets.py`

For each: the groups, the share of the parameters that goes with half of the units of each group, the largest change of
an output by cutting units that are zero, relative to the largest output, and seconds of processor time to find the
groups. torch-pruning gets what its documentation asks for: the number of heads of each attention, which are its
`num_heads` afterwards, and no fused attention. Ours gets the network alone.
"""

from __future__ import annotations

import argparse
import copy
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.pruning_nets import NETS, deviation_of_cut, hide_nothing, made, outputs_of

from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups

LONGEST_SECONDS = 90


@dataclass(frozen=True)
class Row:
    """What one of both finds in a network."""

    groups: int = 0
    removable: float = 0.0
    deviation: float = float("nan")
    seconds: float = float("nan")
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.error:.44}"
        return f"{self.groups:5} groups {self.removable:6.1%} {self.deviation:9.1e} {self.seconds:6.1f} s"


def size_of(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def ours(network: nn.Module, x: Tensor) -> Row:
    """What `find_groups` finds, and `cut` removes."""
    start = time.process_time()
    dependencies = find_groups(network, x)
    seconds = time.process_time() - start
    kept = {group.name: np.arange(group.n_units)[::2] for group in dependencies.groups}
    deviation = deviation_of_cut(network, x, dependencies, kept)
    smaller = copy.deepcopy(network)
    cut(smaller, dependencies, kept)
    return Row(len(dependencies.groups), 1 - size_of(smaller) / size_of(network), deviation, seconds)


def torch_pruning(network: nn.Module, x: Tensor) -> Row:
    """What the pruner of torch-pruning finds and removes, group by group."""
    import torch_pruning as tp

    whole = size_of(network)
    heads = {}
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if hasattr(module, "num_heads") and isinstance(getattr(module, "qkv", None), nn.Linear):
            heads[module.qkv] = module.num_heads
    classes = outputs_of(network, x).shape[1]
    ignored = [
        m for m in network.modules() if classes in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))
    ]
    start = time.process_time()
    pruner = tp.pruner.BasePruner(
        network,
        x,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        num_heads=heads,
        prune_num_heads=bool(heads),
        head_pruning_ratio=0.5,
    )
    seconds = time.process_time() - start
    expected = outputs_of(network, x)
    count, worst = 0, 0.0
    for group in pruner.step(interactive=True):
        zero_outputs(group)
        expected = outputs_of(network, x)
        group.prune()
        for module in network.modules():
            if (qkv := getattr(module, "qkv", None)) in heads:
                module.num_heads = pruner.num_heads[qkv]
                module.attn_dim = qkv.out_features // 3
                module.head_dim = module.attn_dim // module.num_heads
        worst = max(worst, float((outputs_of(network, x) - expected).abs().max() / expected.abs().max()))
        count += 1
    return Row(count, 1 - size_of(network) / whole, worst, seconds)


@torch.no_grad()
def zero_outputs(group: list[tuple[object, list[int]]]) -> None:
    """Zero what the layers of a group of torch-pruning make."""
    for dependency, indices in group:
        layer = dependency.target.module  # type: ignore[attr-defined]
        if "out" in dependency.handler.__name__:  # type: ignore[attr-defined]
            axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            if isinstance(getattr(layer, "weight", None), Tensor):
                layer.weight.index_fill_(axis, torch.tensor(indices), 0)
            if isinstance(getattr(layer, "bias", None), Tensor):
                layer.bias.index_fill_(0, torch.tensor(indices), 0)


def give_up(*_ignored: object) -> None:
    """What the alarm does."""
    raise TimeoutError(f"no result in {LONGEST_SECONDS} s")


def main() -> None:
    """Print a line for each network."""
    signal.signal(signal.SIGALRM, give_up)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=", ".join(NETS))
    for name in parser.parse_args().names or NETS:
        found = []
        for method in (ours, torch_pruning):
            network, x = made(name)
            hide_nothing(network)
            signal.alarm(LONGEST_SECONDS)
            try:
                found.append(method(network, x))
            except Exception as error:  # of either: that is what is compared
                found.append(Row(error=f"{type(error).__name__}: {error}".split("\n")[0]))
            finally:
                signal.alarm(0)
        print(f"{name:22} ours {found[0]!s:44} torch-pruning {found[1]}", flush=True)


if __name__ == "__main__":
    main()
