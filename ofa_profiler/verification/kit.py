"""A kit for a device that cannot be reached: ops, and the whole networks that calibrate and validate the table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ofa_profiler.base.progress import Reporter
from ofa_profiler.export import Model, targets_of_kit
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.measuring.probes import probe_ops
from ofa_profiler.measuring.request import Request, request
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.encodings import encodings_of
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.kit import NETWORKS_FOLDER, KitWheels, check_new, run_record, write_kit, write_models
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.verification.calibrate import DEFAULT_VALIDATED, draw_networks
from ofa_profiler.verification.checks import CHECKS, Checks, export_checks
from ofa_profiler.verification.conditions import network_settings
from ofa_profiler.verification.networks import export_networks
from ofa_profiler.verification.profile import count_networks, networks_limit_s, ops_settings


@dataclass(frozen=True)
class KitContents:
    """How many ops and networks a kit has."""

    ops: int
    networks: int


def make_kit(
    space: SearchSpace,
    settings: Settings,
    folder: Path,
    *,
    networks: int | None = None,
    more_ops: Sequence[Op] = (),
    wheels: KitWheels | None = None,
    release: str | None = None,
    try_forms: bool = True,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> KitContents:
    """Write a kit for `space` into `folder`, which must be new or empty.

    The table will be fitted to `networks` networks (None: the usual number, 0: not at all). With networks, the device
    chooses all forms or none, because each network travels in two forms only. `release` is that of the runtime on the
    board, if it is known. `more_ops` are measured, too. `tell` gets the size before the kit is written.
    """
    check_new(folder)
    fitted = count_networks(networks)
    wanted = _encodings(settings.target, wheels)
    if len(wanted) == 1:
        settings = replace(settings, target=replace(settings.target, encoding=wanted[0]))
    asked = request(
        space,
        ops_settings(settings, fitted),
        more_ops=more_ops,
        release=release,
        try_forms=try_forms,
        joint_forms=fitted > 0,
        with_encodings=True,
        cache_dir=cache_dir,
        progress=progress,
    )
    with tempfile.TemporaryDirectory(prefix="ofa-kit-") as exported:
        more = None
        if fitted:
            more = _networks(asked, space, settings, fitted, Path(exported), release, progress)
        asked = replace(asked, models=_within(asked.models, wanted))
        more = more and replace(more, models=_within(more.models, wanted))
        kit = [asked, *([more] if more else [])]
        count = KitContents(len(asked.models), len(more.models) - len(probe_ops()) if more else 0)
        megabytes = sum(map(_size, kit)) / 1e6
        tell(f"the kit has {count.ops} ops and {count.networks} networks: {megabytes:.3g} MB")
        if more:
            write_models(folder / NETWORKS_FOLDER, more.models, more.run)
        write_kit(folder, asked.models, asked.run, wheels=wheels)
    return count


def _networks(
    asked: Request,
    space: SearchSpace,
    settings: Settings,
    fitted: int,
    folder: Path,
    release: str | None,
    progress: Reporter | None,
) -> Request:
    """The networks in the plain form and, if the ops have forms, in all of them; and the probes.

    They are spread over the MACs, because no op has been measured yet.
    """
    cost = AdditiveCost.from_ops(space, lambda op: op.macs)
    draw = draw_networks(space, cost, fitted, DEFAULT_VALIDATED, seed=0)
    fast = Forms({group: form for trial in _trials(asked) for group, form in trial.chosen.items()})

    def export(architectures: list[Architecture], forms: Forms) -> list[Model]:
        def in_encoding(target: Target) -> list[Model]:
            path = folder / f"{forms.name}{target.encoding}"
            path.mkdir()
            return export_networks(space, architectures, path, target, forms, progress, release)

        others = {name: in_encoding(target) for name, target in targets_of_kit(settings.target).items()}
        return [
            replace(model, encodings={name: models[i] for name, models in others.items()})
            for i, model in enumerate(in_encoding(settings.target))
        ]

    groups = {a: candidates(settings.target, as_graph(space.layout(a))) for a in draw.all if fast}
    having = [architecture for architecture in draw.all if groups.get(architecture)]
    variants = dict(zip(having, export(having, fast), strict=True)) if having else {}
    checks = Checks(probe_ops())
    models = [
        replace(model, variants={fast.of(groups[a]): variants[a]} if a in variants else {})
        for a, model in zip(draw.all, export(list(draw.all), PLAIN), strict=True)
    ]
    models += export_checks(checks, folder / CHECKS, settings.target, PLAIN, release)
    about = {
        "spaces": [space.name],
        "resolutions": list(space.resolutions),
        "session": asked.run.created,
        "networks": draw.to_json(),
        CHECKS: checks.to_json(),
    }
    # The ops may use all of their share, so only the rest is left for sure.
    limit_s = networks_limit_s(settings, asked.run.settings.time_limit_s or 0.0)
    sampling = replace(network_settings(settings), time_limit_s=limit_s)
    run = run_record(models, sampling, about, forms_are_decided=bool(fast))
    return Request(tuple(models), run)


def _encodings(target: Target, wheels: KitWheels | None) -> list[str]:
    """The encodings of int8 that the board may need. The wheels of a kit tell its architecture."""
    possible = {encoding.name for encoding in encodings_of(wheels.machine if wheels is not None else None)}
    return [name for name in targets_of_kit(target) if name in possible]


def _within(models: Sequence[Model], encodings: Sequence[str]) -> tuple[Model, ...]:
    """The models without other encodings than these."""

    def within(model: Model) -> Model:
        variants = {forms: within(variant) for forms, variant in model.variants.items()}
        return replace(model, variants=variants, encodings={n: m for n, m in model.encodings.items() if n in encodings})

    return tuple(map(within, models))


def _trials(asked: Request) -> list[Forms]:
    return [trial.forms for trial in asked.run.candidates.trials] if asked.run.candidates else []


def _size(part: Request) -> int:
    forms = [file for model in part.models for file in (model, *model.variants.values())]
    files = {file.path for form in forms for file in (form, *form.encodings.values())}
    return sum(path.stat().st_size for path in files)
