"""The log of a training: a CSV that people, spreadsheets and pandas read, and a picture of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.verification.plot import check_plot_path

#: Columns of every log; after them come the accuracies of what is watched, empty where they were not measured.
COLUMNS = ("step", "epoch", "phase", "learning_rate", "loss", "largest_loss", "images_per_s", "seconds")


class TrainingLog:
    """Rows by step. A resumed training drops the rows after the step at which it resumes."""

    def __init__(self, path: Path, step: int, watched: Sequence[str]) -> None:
        self.path, self.columns = path, (*COLUMNS, *watched)
        kept = [row for row in read_log(path) if int(row["step"]) <= step] if path.exists() and step else []
        self.seconds = float(kept[-1]["seconds"]) if kept else 0.0
        write_text(path, _lines([self.columns, *(self._cells(row) for row in kept)]))

    def write(self, row: Mapping[str, object]) -> None:
        """Append a row; columns that it does not have stay empty. Raises `UsageError` when it cannot be written."""
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(_lines([self._cells(row)]))
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _cells(self, row: Mapping[str, object]) -> list[object]:
        return [row.get(name, "") for name in self.columns]


def _lines(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log; a last one that was cut short is left out."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(path, f"cannot be read as a training log ({error})") from error
    return [row for row in rows if None not in row and None not in row.values() and row.get("step", "").isdigit()]


def plot_log(path: Path, picture: Path, *, title: str = "") -> None:
    """Draw loss and accuracies against epochs. Raises `UsageError` where matplotlib is missing."""
    check_plot_path(picture)
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    rows = read_log(path)
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    largest = _column(rows, "largest_loss")
    losses.plot(*_column(rows, "loss"), color="0.6", label="mean of the subnets" if largest[0] else "loss")
    if largest[0]:  # of a supernet
        losses.plot(*largest, color="C0", label="largest")
    losses.set(xlabel="epoch", ylabel="training loss")
    for name in list(rows[0])[len(COLUMNS) :] if rows else ():
        accuracies.plot(*_column(rows, name), marker=".", label=name)
    accuracies.set(xlabel="epoch", ylabel="top-1 on held-out images")
    for axes in (losses, accuracies):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    with replacing(picture) as temporary:
        figure.savefig(temporary, format=picture.suffix.removeprefix("."))


def _column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[float], list[float]]:
    pairs = [(float(row["epoch"]), float(row[name])) for row in rows if row[name]]
    return [x for x, _ in pairs], [y for _, y in pairs]
