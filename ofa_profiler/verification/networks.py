"""The networks of a verification: exported to be measured, and put together with their measurements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.export import Model, export_network, network_model
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.verification.result import Subnet


def export_networks(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    folder: Path,
    target: Target,
    forms: Forms,
    progress: Reporter | None,
    release: str | None = None,
) -> list[Model]:
    """A model per network in `folder`, for a release of the runtime.

    Equal architectures give equal files, so a journal can be continued.
    """
    suffix = get_runtime(target.runtime).suffix
    models = []
    for architecture in architectures:
        text = json.dumps(architecture.to_json(), sort_keys=True)
        key = f"{space.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        path = export_network(
            space,
            architecture,
            repeating_weights(space.layout(architecture)),
            folder / f"{key}{suffix}",
            target,
            metadata={
                "space": space.name,
                "architecture": text,
                "weights": "untrained",
                "forms": json.dumps(forms.to_json()),
            },
            forms=forms,
            release=release,
        )
        models.append(network_model(space, architecture, key, path, target))
        report(progress, "export", len(models), len(architectures))
    return models


def measured_subnet(
    architecture: Architecture, predicted_ms: float, found: Measurement | None, model: Path | None
) -> Subnet:
    """A network with what was measured of it, if anything was."""
    if found is None or not found.ok:
        error = found.error if found is not None else "it was not measured"
        return Subnet(architecture, predicted_ms, None, model=model, error=error or "unknown")
    even_ms, odd_ms = None, None
    if len(found.rounds_ms) > 1:
        even_ms, odd_ms = found.median_of_rounds_ms(0, 2), found.median_of_rounds_ms(1, 2)
    return Subnet(architecture, predicted_ms, found.median_ms, even_ms, odd_ms, model)
