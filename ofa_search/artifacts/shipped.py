"""The files that come with the package: for some spaces a trained supernet and an accuracy predictor.

`SPACE.safetensors` is the supernet, `SPACE-predictor.safetensors` the predictor fitted to it, and
`SPACE-mixed-predictor.safetensors` the one of its networks in mixed precision. The JSON beside
each describes it, the images on which it was measured, and how it was made.
"""

from __future__ import annotations

from pathlib import Path

from ofa_profiler.networks.architecture import MIXED

SUFFIX = ".safetensors"
FOLDER = Path(__file__).resolve().parent / "pretrained"


def shipped_supernet(space: str) -> Path | None:
    """The trained supernet of the space of this name, if the package has one."""
    return _existing(f"{space}{SUFFIX}")


def shipped_predictor(space: str, precision: str = "fp32") -> Path | None:
    """The accuracy predictor of the space of this name, if the package has one, for networks in this precision.

    For int8 and mixed precision, that of mixed precision comes first, then that of fp32.
    """
    plain = space.removesuffix(MIXED)
    mixed = _existing(f"{plain}{MIXED}-predictor{SUFFIX}") if precision != "fp32" or plain != space else None
    return mixed or _existing(f"{plain}-predictor{SUFFIX}")


def ships(path: Path) -> bool:
    """Whether a file is one of those."""
    return path.resolve().parent == FOLDER


def _existing(name: str) -> Path | None:
    return FOLDER / name if name in {path.name for path in FOLDER.glob(f"*{SUFFIX}")} else None
