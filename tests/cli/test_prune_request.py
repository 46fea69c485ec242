"""What `ofa-prune` refuses before it loads anything, and whose folder it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.cli import prune
from ofa_search.cli.prune_request import Request, claim_folder, read_request

ARGUMENTS = {
    "--model": "nets:small",
    "--input": "1x3x32x32",
    "--budget": "2ms",
    "--data": "images",
    "--device": "local",
}


def request(out: Path, **changed: str | None) -> Request:
    given = ARGUMENTS | {"--out": str(out)} | {f"--{name.replace('_', '-')}": text for name, text in changed.items()}
    words = [word for name, text in given.items() if text is not None for word in (name, text) if word]
    return read_request(prune._parser().parse_args(words))


def test_names_and_units(tmp_path: Path) -> None:
    found = request(tmp_path)
    assert (found.name, found.budget_ms, found.resolution, found.method) == ("small", 2.0, 32, "hesso")
    assert found.path(".onnx") == tmp_path / "small.onnx"
    assert request(tmp_path, name="other", model="a.b:c").name == "other"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"model": "net.onnx"}, "not package.module:function"),
        ({"budget": "2"}, "--budget"),
        ({"device": None}, "give --device DEVICE to measure, or --lut"),
        ({"lut": "table.csv"}, "one of them"),
        ({"device": None, "lut": "none.csv"}, "none.csv: no such file"),
        ({"runtime": "tensorrt"}, "tensorrt"),
        ({"name": "a/b"}, "a/b"),
        ({"input": "1x3x32x16"}, "squares"),
    ],
)
def test_refused_at_once(changed: dict[str, str | None], problem: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=problem):
        request(tmp_path, **changed)


def test_a_table_has_the_settings_of_its_device(tmp_path: Path) -> None:
    (tmp_path / "grid.csv").write_text("")
    with pytest.raises(UsageError, match="--cores is for a device that is measured"):
        request(tmp_path, device=None, lut=str(tmp_path / "grid.csv"), cores="1")


def test_a_table_has_the_runtime_of_its_measurement(tmp_path: Path) -> None:
    table = {"device": None, "lut": str(ROOT / "latency_tables" / "epyc-cifar-mbv3.csv")}
    assert request(tmp_path, **table).settings.target.runtime == "onnxruntime"
    assert request(tmp_path, runtime="onnxruntime", **table).settings.target.runtime == "onnxruntime"
    with pytest.raises(InputFileError, match="was measured with onnxruntime, not litert"):
        request(tmp_path, runtime="litert", **table)
    with pytest.raises(UsageError, match="--threads is for a device"):
        request(tmp_path, threads="2", **table)
    assert request(tmp_path, runtime="litert").settings.target.runtime == "litert"
    assert request(tmp_path).settings.target.runtime == "onnxruntime"


def test_a_folder_belongs_to_one_request(tmp_path: Path) -> None:
    claim_folder(request(tmp_path / "out"))
    claim_folder(request(tmp_path / "out", time_limit="1m"))
    (tmp_path / "out" / "choices.json").write_text("{}")
    with pytest.raises(InputFileError, match=r"another budget \(2 ms, now 3 ms\): choose another --out, or .* --fresh"):
        claim_folder(request(tmp_path / "out", budget="3ms"))
    claim_folder(request(tmp_path / "out", budget="3ms", fresh=""))
    claim_folder(request(tmp_path / "out", budget="3ms"))


def test_a_measured_grid_serves_other_budgets(tmp_path: Path) -> None:
    """A refused budget tells what can be reached; the next one needs the same grid."""
    claim_folder(request(tmp_path, budget="1us"))
    (tmp_path / "small-grid.jsonl").write_text("")
    claim_folder(request(tmp_path, budget="3ms", method="dhspg"))
    with pytest.raises(InputFileError, match="another threads"):
        claim_folder(request(tmp_path, budget="3ms", threads="2"))
    (tmp_path / "training.safetensors").write_text("")
    with pytest.raises(InputFileError, match=r"another budget \(3 ms, now 4 ms\)"):
        claim_folder(request(tmp_path, budget="4ms"))


@pytest.mark.parametrize("name", ["training.safetensors", "small.json"])
def test_results_of_other_commands_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("theirs")
    with pytest.raises(UsageError, match=rf"has results of another command \({name}\)"):
        claim_folder(request(tmp_path))
    assert (tmp_path / name).read_text() == "theirs"
    claim_folder(request(tmp_path, fresh=""))


def test_a_damaged_request_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text("[]")
    with pytest.raises(InputFileError, match="damaged"):
        claim_folder(request(tmp_path))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        claim_folder(request(tmp_path / "file" / "out"))
