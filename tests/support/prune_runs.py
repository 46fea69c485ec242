"""Runs of `ofa-prune` with the network and images of `prunable.py`, and their documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUICK = ["--train-device", "cpu", "--train-threads", "1", "--batch", "16", "--epochs", "3", "--time-limit", "2s"]


def arguments(out: Path, *more: str, model: str = "trained", budget: str = "1h") -> list[str]:
    what = ["--model", f"small_nets:{model}", "--input", "1x3x32x32", "--data", "photos", "--out", str(out)]
    where = [] if {"--lut", "--device"} & {*more} else ["--device", "local"]
    return [*what, *QUICK, "--cache", "cache", *where, *more, "--budget", budget]


def document(out: Path) -> dict[str, Any]:
    return json.loads((out / "trained.json").read_text())


def check_pruned(found: dict[str, Any]) -> None:
    assert found["after"]["measured_ms"] <= found["budget_ms"] < found["before"]["measured_ms"]
    assert found["after"]["macs"] < found["before"]["macs"]
    assert found["after"]["size_bytes"]["onnx"] < found["before"]["size_bytes"]["onnx"]
    assert found["after"]["accuracy"]["held_out"]["top1"] > 0.8
    assert any(layer["after"] != layer["before"] for layer in found["layers"])
