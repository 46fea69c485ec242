"""The limit of `--max-size`: the bytes of the model file in the runtime and the precision of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ofa_profiler.errors import UsageError
from ofa_profiler.export.file_size import file_bytes
from ofa_profiler.networks.ranges import CALIBRATED
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.results.deployments import Deployment
from ofa_search.results.files import target_of
from ofa_search.results.found import Found
from ofa_search.results.weight_source import WeightSource
from ofa_search.searching.api import SearchResult
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import SizeLimit

#: A number with as many digits as a float can have in metadata.
_LONGEST = -0.0012345678901234567


def size_limit(
    max_bytes: float,
    tables: Sequence[AnyTable],
    objective: Objective,
    source: WeightSource,
    deployments: Mapping[str, Deployment],
    precision: str,
) -> SizeLimit:
    """Files for the runtime of the first table may have `max_bytes` bytes.

    Raises `UsageError` if the table does not name its runtime.
    """
    runtime = tables[0].metadata.get("runtime")
    if runtime is None:
        raise UsageError(
            f"--max-size: table {tables[0].name} does not name its runtime, so the format of the file is unknown; "
            "give a table of ofa-profile first"
        )
    longest = _longest(tables, objective, source, deployments, precision)
    deployment = deployments.get(runtime, Deployment())
    metadata = longest.card().metadata(deployment)
    if precision != "fp32":
        metadata |= {"precision": precision, "ranges": CALIBRATED}
        metadata |= {"precisions": json.dumps(longest.precisions)} if longest.precisions else {}
    cost = file_bytes(source.space, target_of(longest, runtime), deployment.forms, metadata)
    return SizeLimit(get_runtime(runtime).suffix.removeprefix("."), cost, max_bytes)


def _longest(
    tables: Sequence[AnyTable],
    objective: Objective,
    source: WeightSource,
    deployments: Mapping[str, Deployment],
    precision: str,
) -> Found:
    """A network whose metadata are at least as long as those of any other one."""
    milliseconds = {table.name: _LONGEST for table in tables}
    accuracy = None if objective.accuracy(0.0) is None else _LONGEST
    result = SearchResult(source.space.largest, accuracy, milliseconds, milliseconds, 0, 0, "", 0, 0, 0.0)
    return Found(result, objective, source, deployments, precision)
