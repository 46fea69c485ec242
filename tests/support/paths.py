"""Where things are in a checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Published tables, data sets and emulated devices, beside the checkout; may be missing.
SHARED = ROOT.parent / "shared"
