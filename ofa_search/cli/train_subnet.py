"""`ofa-train subnet`."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.files import write_text
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import MIXED, Architecture
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.cli import train_options as common
from ofa_search.cli.named_file import named_file
from ofa_search.results.deployments import Deployment, read_deployments
from ofa_search.results.model_card import TRAINED, ModelCard
from ofa_search.supernet.description import weights_path

if TYPE_CHECKING:
    from ofa_search.data.images import DataSplit
    from ofa_search.evaluation.world import World
    from ofa_search.supernet.supernet import TrainedSupernet
    from ofa_search.training.subnet_trainer import Start, SubnetTrainer

HELP = "train the network of one architecture"
DESCRIPTION = """\
Fine-tune the network of one architecture, cut out of its supernet, or train it from scratch.
DIR gets the models subnet.onnx and subnet.tflite, subnet.json with their accuracy, the log training.csv
and its plot. After an interruption, even by kill -9, run the same command again: it resumes.

If the images have other classes than the supernet, the network gets a new classifier.
"""
EXAMPLES = """\
examples:
  ofa-train subnet --supernet out/supernet/supernet.safetensors --architecture out/search/search.json \\
      --data cifar10/ --out out/network
  ofa-train subnet --supernet ofa_mbv3.pth --architecture found.json --data photos/ --out out/mine --epochs 3
  ofa-train subnet --from-scratch --architecture found.json --data cifar10/ --out out/alone --epochs 20
"""
NAME = "subnet"
_EPOCHS, _EPOCHS_FROM_SCRATCH = 5.0, 20.0
#: Trained weights need small steps: about a quarter of the learning rate from scratch.
_FINE_TUNING_RATE = {"adamw": 1e-3, "sgd": 1e-2}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--architecture",
        metavar="JSON",
        type=Path,
        required=True,
        help="architecture file, also net.config or {ks, e, d, r} of the OFA authors, or a search.json with one result",
    )
    group.add_argument(
        "--space", metavar="NAME", help="the space of the architecture, package.module:NAME, if you wrote it"
    )
    group.add_argument("--supernet", metavar="NAME|FILE", help="supernet to cut the network from, as in ofa-search")
    group.add_argument("--from-scratch", action="store_true", help="start from random weights")
    group.add_argument(
        "--distill",
        action="store_true",
        help="distillation: learn from labels and from the largest network of the supernet",
    )
    common.add_data_arguments(parser)
    common.add_training_arguments(
        parser,
        epochs=f"{_EPOCHS:g}, from scratch {_EPOCHS_FROM_SCRATCH:g}",
        learning_rate="0.001 for adamw, 0.01 for sgd; from scratch 0.004 and 0.05",
    )


def run(arguments: Namespace) -> int:
    """Train and report -> the exit code."""
    if arguments.from_scratch == (arguments.supernet is not None):
        raise UsageError("no initial weights: give one of --supernet NAME|FILE and --from-scratch")
    if arguments.distill and arguments.from_scratch:
        raise UsageError("--distill needs --supernet")
    if arguments.space is not None:
        get_space(arguments.space)
    architecture = Architecture.load(arguments.architecture, arguments.space or _space_of(arguments.supernet))
    if architecture.bits:
        raise UsageError(
            f"--architecture {arguments.architecture} is of mixed precision, but training is in float32: "
            f"take 'bits' out of the file, and '{MIXED}' out of its 'space'"
        )
    deployments = read_deployments(arguments.architecture)
    supernet = _supernet_file(arguments.supernet) if arguments.supernet is not None else None
    common.prepare_process(arguments.threads)
    from ofa_search.evaluation.world import join_world

    with join_world(arguments.device) as world:
        document = _train(arguments, architecture, deployments, supernet, world)
    if document is not None:
        lines = [*common.spell_accuracies(document["accuracy"]), f"written to {arguments.out}"]
        common.report(arguments, document, lines)
    return 0


def _train(
    arguments: Namespace,
    architecture: Architecture,
    deployments: Mapping[str, Deployment],
    supernet: Path | None,
    world: World,
) -> dict[str, Any] | None:
    from ofa_search.evaluation.subnets import calibration_images
    from ofa_search.training.loop import run_training
    from ofa_search.training.subnet_trainer import SubnetTrainer

    space = get_space(architecture.space)
    with common.progress(world) as reporter:
        data = common.load_data(arguments, max(space.valid_resolutions), world, reporter)
        space = space.with_classes(len(data.training.classes))
        trained = _load(supernet, architecture, data, distill=arguments.distill)
        if world.leads and trained is not None and _other_classes(trained, data):
            say(f"the supernet has other classes: the network gets a new classifier for {space.n_classes} classes")
        start = _start(supernet, arguments.seed, space, architecture, trained, data)
        options = common.training_options(
            arguments,
            epochs=_EPOCHS_FROM_SCRATCH if trained is None else _EPOCHS,
            learning_rate=None if trained is None else _FINE_TUNING_RATE[arguments.optimizer],
        )
        teacher = trained.supernet if trained is not None and arguments.distill else None
        trainer = SubnetTrainer(space, start, options, data.training, world, teacher)
        description = run_training(
            trainer,
            data,
            arguments.out,
            fresh=arguments.fresh,
            progress=reporter,
        )
    if not world.leads:
        return None
    calibration = calibration_images(data.training).to(world.device)
    return _write(arguments.out, trainer, trainer.finished(calibration), data, description, deployments)


def _space_of(supernet: str | None) -> str | None:
    """The space that `--supernet` names, for an architecture file that names none."""
    return supernet if supernet in space_names() else None


def _supernet_file(name: str) -> Path:
    """An included supernet, a published one, or a file. Raises `UsageError`."""
    return weights_path(shipped_supernet(name) or named_file("supernet", name))


def _load(path: Path | None, architecture: Architecture, data: DataSplit, *, distill: bool) -> TrainedSupernet | None:
    if path is None:
        return None
    from ofa_search.supernet.supernet import load_trained

    trained = load_trained(path, architecture.space)
    if distill and _other_classes(trained, data):
        raise UsageError(f"--distill: {path} has other classes than {data.training.name}")
    return trained


def _other_classes(trained: TrainedSupernet, data: DataSplit) -> bool:
    classes = list(data.training.classes)
    labels = trained.description.get("labels")
    return trained.supernet.space.n_classes != len(classes) or (labels is not None and labels != classes)


def _start(
    path: Path | None,
    seed: int,
    space: SearchSpace,
    architecture: Architecture,
    trained: TrainedSupernet | None,
    data: DataSplit,
) -> Start:
    from ofa_search.training.subnet_trainer import from_scratch, from_supernet

    if path is None or trained is None:
        return from_scratch(space, architecture, seed)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    new_classes = _other_classes(trained, data)
    return from_supernet(space, architecture, trained.supernet, digest, seed, new_classes=new_classes)


# --- the result --------------------------------------------------------------------------------------


def _write(
    out: Path,
    trainer: SubnetTrainer,
    network: Any,
    data: DataSplit,
    description: dict[str, Any],
    deployments: Mapping[str, Deployment],
) -> dict[str, Any]:
    """Measure the network, write models and summary -> the summary."""
    from ofa_profiler.export import export_network
    from ofa_profiler.networks.torch_modules import to_weights
    from ofa_search.evaluation.subnets import accuracy
    from ofa_search.training.loop import LOG

    architecture, space, device = trainer.architecture, trainer.space, trainer.world.device
    measured = {
        kind: {
            "images": len(images),
            "top1": round(accuracy(network, architecture, space, images.to(device)), 4),
        }
        for kind, images in data.measured().items()
    }
    card = ModelCard("ofa-train", architecture, TRAINED, measured, data.training.classes)
    weights = to_weights(network)
    files = {"log": out / LOG}
    for runtime in runtimes().values():
        path = out / f"{NAME}{runtime.suffix}"
        deployment = deployments.get(runtime.name, Deployment())
        files[runtime.suffix.removeprefix(".")] = export_network(
            space,
            architecture,
            weights,
            path,
            Target(runtime.name),
            metadata=card.metadata(deployment),
            forms=deployment.forms,
        )
    plot = common.draw_log(out, LOG, f"{space.name}, one network")
    document = {
        "architecture": architecture.to_json(),
        "macs": space.macs(architecture),
        "params": space.params(architecture),
        **card.to_json(),
        "files": {kind: str(path) for kind, path in files.items()} | ({"plot": str(plot)} if plot else {}),
        "training": description,
    }
    write_text(out / f"{NAME}.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    return document
