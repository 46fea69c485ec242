"""From stored images to what a network takes: with random changes for training, without for everything else.

All of it runs where the pixels are, on whole batches. What is random is given in, so the caller can draw
it from a seed and a step number and needs no state of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ofa_profiler.spaces.base import Preprocessing

#: Up to this size images are moved and mirrored; larger ones are also cropped and scaled.
SMALL = 64


def prepare(pixels: Tensor, resolution: int | None, preprocessing: Preprocessing) -> Tensor:
    """Pixels (N, 3, S, S) uint8 -> input (N, 3, R, R): resized (bilinear, antialiased), scaled, normalised.

    Without a resolution, they keep their size.
    """
    images = pixels.to(torch.float32)
    if resolution is not None and images.shape[-1] != resolution:
        size = (resolution, resolution)
        images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    low, high = preprocessing.range
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=pixels.device).view(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (images * ((high - low) / 255.0) + (low - mean)) / std


def augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Pixels (N, 3, S, S) uint8 -> the same, each image mirrored or not and moved by up to an eighth, or,
    where images are large, cropped to between a quarter and all of its area and scaled back."""
    count, _, size, _ = pixels.shape
    mirrored = torch.from_numpy(rng.random(count) < 0.5).to(pixels.device)
    if size > SMALL:
        return _cropped(pixels, mirrored, rng)
    reach = size // 8
    offsets = torch.from_numpy(rng.integers(-reach, reach + 1, (2, count, 1))).to(pixels.device)
    place = torch.arange(size, device=pixels.device)
    rows = _reflected(offsets[0] + place, size)
    columns = _reflected(offsets[1] + torch.where(mirrored[:, None], place.flip(0), place), size)
    which = torch.arange(count, device=pixels.device)[:, None, None]
    # Advanced indices around a slice put the channels last.
    return pixels[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside of [0, size) as those that they are the mirror images of.

    With borders of one colour instead, nearly all that a network sees in training has such borders, and it
    comes to rely on them: cifar-mbv3 then had 86% right of images with borders and 81% of those without.
    """
    places = places.abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def _cropped(pixels: Tensor, mirrored: Tensor, rng: np.random.Generator) -> Tensor:
    count, device = len(pixels), pixels.device
    area, aspect = rng.uniform(0.25, 1.0, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    sides = np.minimum(1.0, np.sqrt([area * aspect, area / aspect]))
    centres = rng.uniform(-1.0, 1.0, (2, count)) * (1.0 - sides)
    scale, shift = (torch.from_numpy(values).to(device, torch.float32) for values in (sides, centres))
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = torch.where(mirrored, -scale[0], scale[0])
    theta[:, 1, 1] = scale[1]
    theta[:, :, 2] = shift.T
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(
        pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return moved.round_().clamp_(0, 255).to(torch.uint8)
