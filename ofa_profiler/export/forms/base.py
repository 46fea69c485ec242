"""What a form is, and the list of all forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Layer
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.target import Target


@dataclass(frozen=True)
class Form:
    """A way to write layers of one type for one runtime.

    `group(layer)` is the group of a layer, such as `depthwise 7x7, stride 2`, or None if the form does not apply to it.
    All layers of a group are written in the same form. `write` is like the entry of the exporter's table of layers.
    The form is tried for models of these `precisions`. For calibration, `observe(graph, layer, name, *inputs)` adds the
    tensors inside the form to a float32 ONNX graph, and marks them.
    """

    name: str
    runtime: str
    layer: type[Layer]
    group: Callable[[Any], str | None]
    write: Callable[..., str]
    precisions: tuple[str, ...] = ("fp32",)
    observe: Callable[..., None] | None = None

    def group_of(self, layer: Layer) -> str | None:
        """The group of any layer; None if the form does not apply to it."""
        return self.group(layer) if type(layer) is self.layer else None


@dataclass(frozen=True)
class ActivationForm:
    """A way to write an activation, after layers of any type. It can be combined with a form of the layer.

    `write(graph, name, tensor)` adds the activation of a tensor, and returns the name of the result.
    """

    name: str
    runtime: str
    activation: str
    write: Callable[..., str]
    precisions: tuple[str, ...]

    def group_of(self, layer: Layer) -> str | None:
        """The group of any layer; None if it does not end in this activation."""
        return f"activation {self.activation}" if getattr(layer, "activation", "") == self.activation else None


AnyForm = Form | ActivationForm

_FORMS: list[AnyForm] = []


def register_form(form: AnyForm) -> None:
    """Add a form. Raises `UsageError` if the runtime has a form of this name."""
    if any((known.name, known.runtime) == (form.name, form.runtime) for known in _FORMS):
        raise UsageError(f"{form.runtime} already has the form {form.name!r}")
    _FORMS.append(form)


def all_forms() -> tuple[AnyForm, ...]:
    """All forms, in the order of addition."""
    return tuple(_FORMS)


def candidates(target: Target, graph: Graph) -> dict[str, list[str]]:
    """Group -> names of its forms, for all groups in `graph` that have a form."""
    found: dict[str, list[str]] = {}
    for form in (form for form in _FORMS if form.runtime == target.runtime and target.precision in form.precisions):
        for group in {group: None for node in graph.nodes if (group := form.group_of(node.layer)) is not None}:
            found.setdefault(group, []).append(form.name)
    return found


def combinations(target: Target, graph: Graph) -> list[Forms]:
    """All ways to write `graph` in forms, except the plain one."""
    found = candidates(target, graph)
    choices = [[None, *names] for names in found.values()]
    ways = (dict(zip(found, names, strict=True)) for names in product(*choices))
    return [forms for way in ways if (forms := Forms({group: name for group, name in way.items() if name}))]


def writer_of(runtime: str, layer: Layer, forms: Forms) -> Callable[..., str] | None:
    """The function that writes the layer in its chosen form; None for the plain form."""
    if not forms.chosen:
        return None
    for form in _FORMS:
        if form.runtime == runtime and isinstance(form, Form):
            group = form.group_of(layer)
            if group is not None and forms.chosen.get(group) == form.name:
                return form.write
    return None


def activation_writers(runtime: str, forms: Forms) -> dict[str, Callable[..., str]]:
    """Activation -> the function that writes it, for activations that are not written in the plain form."""
    return {
        form.activation: form.write
        for form in _FORMS
        if form.runtime == runtime and isinstance(form, ActivationForm)
        if forms.chosen.get(f"activation {form.activation}") == form.name
    }


def check_forms(target: Target, forms: Forms) -> None:
    """Raise `UsageError` for a form that this version does not have, or not for these models."""
    known = {form.name: form for form in _FORMS if form.runtime == target.runtime}
    for group, name in forms.chosen.items():
        if name not in known:
            raise UsageError(f"unknown form {name!r:.60} of {group!r:.60} for {target.runtime}; update ofa-profiler")
        precisions = known[name].precisions
        if target.precision not in precisions:
            raise UsageError(
                f"the form {name!r} of {group!r:.60} is for {', '.join(precisions)}, not for {target.precision}: "
                "use the forms of a table of the same precision"
            )
