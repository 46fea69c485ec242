"""What is asked of a device about a user's model: the network, its distinct blocks, and the journal's first line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.model_table import WHOLE
from ofa_profiler.models.base import Array, Block, TimedModel, UserModel, tensor_bytes, tensor_specs
from ofa_profiler.models.timed import timed_model
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.model_file import Model
from ofa_profiler.protocol.records import Run
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import get_runtime

#: The kind of the network among the models, unless it is the only block.
NETWORK = "network"


@dataclass(frozen=True)
class ModelRequest:
    """The network and its distinct blocks as files, and what a journal or a kit says about them."""

    models: tuple[Model, ...]
    run: Run


#: Inputs and outputs of blocks are spread over as many bytes as the network has in use at a time, so that a block finds
#: them where the network leaves them. But not over more than this, which no cache of a core holds: the tensor that was
#: written last is still in a cache.
_MOST_SPREAD_BYTES = 8_000_000


def runs_on_this_cpu(spec: str, settings: Settings) -> bool:
    """Whether blocks run on the CPU of this machine, so that they can be cut as the runtime runs them there.

    `spec` is that of the device. Layouts of the CPU's kernels are of no use to other providers, which refuse them.
    """
    default = get_runtime(settings.target.runtime).default_provider
    return spec == LocalDevice.spec and settings.provider in (None, default)


def model_request(
    model: UserModel,
    feeds: Mapping[str, Array],
    settings: Settings,
    *,
    this_machine: bool,
    cache_dir: Path | None = None,
) -> ModelRequest:
    """Cut the network and write its models to the cache. Raises `UsageError` if it does not run with these inputs."""
    outputs = model.run(feeds)
    _check_ends(model, feeds, outputs)
    blocks = model.blocks(feeds, this_machine=this_machine)
    first = {block.signature: block for block in reversed(blocks)}
    distinct = [block for block in blocks if first[block.signature] is block]
    names = _distinct_names(blocks)
    timed = {WHOLE: model.whole(feeds)}
    ops = [_network(feeds, outputs, blocks)]
    for block in distinct if len(blocks) > 1 else ():
        timed[names[block.name]] = block.model
        ops.append(replace(block.op, key=names[block.name]))
    about = {
        "spaces": [],
        "model": {
            "file": model.path.name,
            "sha256": model.sha256,
            "bytes": model.n_bytes,
            "inputs": {name: [array.dtype.name, *array.shape] for name, array in feeds.items()},
            "inputs_sha256": _sha256(feeds),
            "blocks": [
                _described(block, names, names[first[block.signature].name] if len(blocks) > 1 else WHOLE)
                for block in blocks
            ],
        },
    }
    models = cached_models(model.runtime, timed, cache_dir)
    return ModelRequest(models, run_record(models, in_network(settings, blocks), about, ops, profile=WHOLE))


def in_network(settings: Settings, blocks: Sequence[Block]) -> Settings:
    """The settings under which each of `blocks` finds its tensors and weights where the network leaves them."""
    weight_bytes = sum(block.weight_bytes for block in blocks)
    return replace(settings, spread_bytes=min(_MOST_SPREAD_BYTES, peak_bytes(blocks)), weight_bytes=weight_bytes)


def cached_models(runtime: str, timed: Mapping[str, TimedModel], cache_dir: Path | None) -> tuple[Model, ...]:
    """Write models into the cache. Raises `UsageError` if a file cannot be written."""
    folder, suffix = (cache_dir or default_cache_dir()) / "models", get_runtime(runtime).suffix
    return tuple(timed_model(key, each, suffix, folder) for key, each in timed.items())


def peak_bytes(blocks: Sequence[Block]) -> int:
    """The most bytes that the tensors between blocks take at a time: from their making to their last use."""
    last_use = {tensor.name: place for place, block in enumerate(blocks) for tensor in block.inputs}
    live: dict[str, int] = {tensor.name: tensor_bytes(tensor) for tensor in blocks[0].inputs}
    peak = 0
    for place, block in enumerate(blocks):
        live |= {tensor.name: tensor_bytes(tensor) for tensor in block.outputs}
        peak = max(peak, sum(live.values()))
        live = {name: size for name, size in live.items() if last_use.get(name, -1) > place}
    return peak


def _sha256(feeds: Mapping[str, Array]) -> dict[str, str]:
    """The SHA-256 of the elements of each input, in C order, little-endian. Values can decide what a network does."""
    return {
        name: hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()
        for name, array in feeds.items()
    }


def _distinct_names(blocks: tuple[Block, ...]) -> dict[str, str]:
    """Name of a block -> its key: the same, unless it is that of the network."""
    return {block.name: block.name if block.name != WHOLE else f"{WHOLE}#block" for block in blocks}


def _described(block: Block, names: Mapping[str, str], measured: str) -> dict[str, Any]:
    """A block among the facts of a journal. `measured` is the key of the model that was measured for it."""
    kernels = [[kernel.name, kernel.kind] for kernel in block.kernels]
    return {"op": names[block.name], "measured": measured, "kernels": kernels}


def _network(feeds: Mapping[str, Array], outputs: Mapping[str, Array], blocks: tuple[Block, ...]) -> Op:
    macs = sum(block.macs for block in blocks)
    n_bytes = sum(block.n_bytes for block in blocks)
    attributes = {"macs": macs, "bytes": n_bytes, "kernels": sum(len(block.kernels) for block in blocks)}
    kind = NETWORK if len(blocks) > 1 else blocks[0].kind
    return Op(kind, tensor_specs(feeds), tensor_specs(outputs), attributes, WHOLE)


def _check_ends(model: UserModel, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Raise `UsageError` for a network of which no input or output can be described."""
    if not feeds:
        raise UsageError(f"{model.path.name} has no inputs: it computes a constant, and there is nothing to measure")
    if not tensor_specs(outputs):
        raise UsageError(
            f"no output of {model.path.name} is a tensor of numbers with elements, for these inputs; if others give "
            "some, give them by --inputs FILE.npz"
        )
