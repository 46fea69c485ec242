"""A small trained classifier as a user has it: a file with a function, and images of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ofa_profiler.devices import FakeDevice
from support.training import CLASSES, made_images

#: Writes `small_nets.py`, whose functions are given to `--model`.
SOURCE = """
import torch
from torch import nn


def network():
    def block(a, b, stride):
        return [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    layers = [*block(3, 16, 1), *block(16, 64, 2), *block(64, 64, 1), *block(64, 96, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 3))


def trained():
    module = network()
    module.load_state_dict(torch.load(__file__.replace("small_nets.py", "small.pt"), weights_only=True))
    return module, {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def untrained():
    return network()


def two_classes():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def no_classifier():
    return nn.Conv2d(3, 8, 3)


def with_softplus():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def half():
    return network().half()


def damaged():
    module = network()
    module[-1].bias.data[0] = float("nan")
    return module


def without_weights():
    return nn.Flatten()


def of_one_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
"""


def made_up_ms(key: str) -> float:
    """More units take longer; the whole network (which has no units in its key) more than any other."""
    _, _, units = key.partition(" ")
    return 0.01 + 1e-3 * sum(map(int, units.split(">"))) if units else {"before": 0.25, "after": 0.1}.get(key, 0.3)


def fake_device() -> FakeDevice:
    """A device on which pruned networks are faster."""
    return FakeDevice(latency_ms=made_up_ms)


def write_network(folder: Path, steps: int = 25) -> Path:
    """`small_nets.py` and the weights of `small_nets:trained` in `folder`."""
    path = folder / "small_nets.py"
    path.write_text(SOURCE)
    names: dict[str, object] = {"__file__": str(path)}
    exec(compile(SOURCE, str(path), "exec"), names)
    torch.manual_seed(0)
    module: nn.Module = names["network"]()  # type: ignore[operator]
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    images = made_images(128)
    inputs = (images.pixels.float() / 255 - 0.5) / 0.25
    for step in range(steps):
        rows = slice(32 * step % 128, 32 * step % 128 + 32)
        loss = functional.cross_entropy(module(inputs[rows]), images.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(module.state_dict(), folder / "small.pt")
    return path


def write_images(folder: Path, per_class: int = 24) -> Path:
    """A folder per class, with `train` and `test`; the folders sort in the order of the classes."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for split, count in (("train", per_class), ("test", per_class // 2)):
        for label, name in enumerate(CLASSES):
            place = folder / split / f"{label}-{name}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return folder
