"""What `benchmark_model` prints beside its statistics: errors, and which delegate runs how much of the model.

Libraries print lines with `ERROR:` for what they then do in another way (no OpenCL, so OpenGL). If the statistics are
complete and the requested delegate runs the model, such lines are notes. Without statistics they are the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_PREFIX = re.compile(r"((?:INFO|WARNING|VERBOSE|ERROR): ?)?(?:\[[^\]\s]{1,200}:\d+\] ?)?")
_APPLIED = re.compile(
    r"Explicitly applied (\w+) delegate, and the model graph will be "
    r"(completely|partially) executed by the delegate(?: w/ (\d+) delegate kernels)?\."
)
_NOT_APPLIED = re.compile(r"Though (\w+) delegate is explicitly applied, the model graph will not be executed.*")
#: LiteRT's tool reports delegates in this way only.
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((.+?)\) node, yielding (\d+) part.*")
_RESTORED = "Restored original execution plan after delegate application failure"
#: A part of the name that a delegate has inside -> its name as an option.
_INSIDE = {"xnn": "XNNPACK", "nnapi": "NNAPI", "hexagon": "Hexagon", "gpu": "GPU", "_cl": "GPU", "_gl": "GPU"}
#: Before the operators that a delegate does not run, one a line, and after them.
_UNSUPPORTED = re.compile(r"(?:Following|Next) operations are not supported by (\w+) delegate:")
_SHARES = re.compile(r"(?:First )?\d+ operations will run on the \w+, and the remaining \d+ .*")
#: After these, times are of a run that did not happen as requested.
_FATAL = re.compile(r"Benchmarking failed.*|Failed to apply .*delegate.*|Aborted.*|Segmentation fault.*")
_FAILED = re.compile(r"Failed to .*|.*\bis unsupported on this platform.*")
_MAX_NOTES = 8


@dataclass(frozen=True)
class Line:
    """A line of the output, without the level and the place in the source that begin it."""

    text: str
    is_error: bool
    is_fatal: bool

    @staticmethod
    def of(line: str) -> Line:
        """Read a line."""
        line = line.strip()
        prefix = _PREFIX.match(line)
        text = line[prefix.end() :].strip() if prefix else line
        is_fatal = _FATAL.fullmatch(text) is not None
        is_error = is_fatal or line.startswith("ERROR:") or _FAILED.fullmatch(text) is not None
        return Line(text, is_error and bool(text), is_fatal)


def lines_of(output: str) -> list[Line]:
    """Split an output into lines."""
    return [Line.of(line) for line in output.splitlines()]


def shown(text: str) -> str:
    """Return a text of the tool as it may be shown."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:200])


def why_failed(lines: Sequence[Line], delegate: str | None) -> str:
    """Return why a call has no times, as one line; empty if the tool does not say it."""
    errors = list(dict.fromkeys(shown(line.text) for line in lines if line.is_error))
    if errors and (refused := _refused(lines, delegate)):
        why = next(_unsupported(lines), errors[0])
        return f"{refusal(refused)} ({why})"
    fatal = [shown(line.text) for line in lines if line.is_fatal]
    reason = [*[error for error in errors if error not in fatal][:1], *fatal[:1]]
    return "benchmark_model failed: " + "; ".join(reason) if reason else ""


def refusal(delegate: str) -> str:
    """Return the message about a delegate that was requested in vain."""
    return f"the requested delegate {delegate} does not run this model"


def delegates(lines: Sequence[Line], wanted: str | None, *, is_litert: bool) -> tuple[str, ...]:
    """Return the delegates that run the model, and how much of it. Raises `ValueError` if `wanted` does not."""
    if wanted is not None and _refused(lines, wanted):
        raise ValueError(refusal(wanted))
    found = {}
    for line in lines:
        if match := _APPLIED.fullmatch(line.text):
            found[match[1]] = match[2] + (f" ({match[3]} kernels)" if match[3] else "")
        elif is_litert and (match := _REPLACED.fullmatch(line.text)):
            nodes, every, inside, parts = match.groups()
            name = next((name for part, name in _INSIDE.items() if part in inside.lower()), shown(inside))
            found[name] = "completely" if nodes == every else f"partially ({nodes} of {every} nodes, {parts} parts)"
        elif line.text.startswith(_RESTORED):
            found.clear()
    if wanted is not None and wanted not in found:
        raise ValueError(f"benchmark_model does not report that the requested delegate {wanted} runs the model")
    return tuple(f"{name}: {how}" for name, how in found.items())


def notes(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return the operators that a delegate does not run, and the errors of a call that has times all the same."""
    errors = (shown(line.text) for line in lines if line.is_error and not _UNSUPPORTED.fullmatch(line.text))
    return tuple(dict.fromkeys([*_unsupported(lines), *errors]))[:_MAX_NOTES]


def _refused(lines: Sequence[Line], wanted: str | None) -> str:
    """The delegate that was requested and does not run the model; empty if there is none."""
    refused = (match[1] for line in lines if (match := _NOT_APPLIED.fullmatch(line.text)))
    return next((delegate for delegate in refused if wanted in (None, delegate)), "")


def _unsupported(lines: Sequence[Line]) -> Iterator[str]:
    """A sentence for each delegate that does not run some operators: which and why, as the tool lists them."""
    delegate, operators = "", list[str]()
    for line in lines:
        if match := _UNSUPPORTED.fullmatch(line.text):
            delegate, operators = match[1], []
        elif delegate and (share := _SHARES.fullmatch(line.text)):
            yield shown(f"{delegate} does not run {', '.join(operators)}")[:180] + f": {shown(share[0])}"
            delegate = ""
        elif delegate and line.text:
            operators.append(line.text.rstrip("."))
