"""Rules for the whole numbers in an export that change when units are removed.

Exporting a module takes seconds. But the export of a cut network differs from that of the whole network in sizes alone.
Each is its full value minus so much for each removed unit of some groups. Which groups these are is told by the names
of weights, or learned from the exports of a few cut modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ofa_search.pruning.groups import Counts, Dependencies

Export = TypeVar("Export")
#: What names a number in an export.
Spot = TypeVar("Spot")
#: Group -> what its removed units take from a number, each.
Rule = Mapping[str, int]


class NotLearned(Exception):
    """The exports differ in more than in sizes, or in sizes that no rule explains."""


@dataclass(frozen=True, eq=False)
class Example(Generic[Export]):
    """The export of a module cut to `counts`."""

    counts: Counts
    model: Export


def axis_rules(dependencies: Dependencies) -> dict[tuple[str, int], Rule]:
    """(weight, axis) -> the rule of its size."""
    rules: dict[tuple[str, int], dict[str, int]] = {}
    for group in dependencies.groups:
        for axis in (*group.made, *group.read):
            rule = rules.setdefault((axis.tensor, axis.axis), {})
            rule[group.name] = rule.get(group.name, 0) + int(np.count_nonzero(axis.units == 0))
    return dict(rules)


def learned_rules(
    numbers: Mapping[Spot, int],
    full: Counts,
    examples: Sequence[Example[dict[Spot, int]]],
    likely: Callable[[Spot], Iterable[Rule]],
    joined: Sequence[Rule] = (),
) -> dict[Spot, Rule]:
    """The rules of those `numbers` that change, which explain all `examples`. Raises `NotLearned`.

    A rule has one number to learn, and it has to explain several: a wrong one hardly does. Those that are `likely` are
    tried first, then multiples of what a single group loses, or groups that are `joined`.
    """
    rules: dict[Spot, Rule] = {}
    for spot, value in numbers.items():
        seen = [(example.counts, example.model[spot]) for example in examples]
        rule = next((rule for rule in likely(spot) if _explains(rule, value, full, seen)), None)
        if rule is None:
            rule = _learned_rule(value, full, seen, joined)
        if rule:
            rules[spot] = rule
    return rules


def joined_rules(named: Mapping[Any, Rule]) -> list[Rule]:
    """Those of weights that read a concatenation: a shape before them is as long, or a multiple."""
    return [rule for rule in named.values() if len(rule) > 1]


def number_at(rule: Rule, value: int, full: Counts, counts: Counts) -> int:
    """The number of the network cut to `counts`; groups without a count are whole."""
    return value - sum(each * (full[group] - counts.get(group, full[group])) for group, each in rule.items())


def _explains(rule: Rule, value: int, full: Counts, seen: Sequence[tuple[Counts, int]]) -> bool:
    return all(number_at(rule, value, full, counts) == other for counts, other in seen)


def _learned_rule(value: int, full: Counts, seen: Sequence[tuple[Counts, int]], joined: Sequence[Rule]) -> Rule:
    """A multiple of what a single group loses, or groups that are `joined`, that explains what was seen.

    Raises `NotLearned`.
    """
    if all(other == value for _, other in seen):
        return {}
    counts, other = max(seen, key=lambda each: abs(value - each[1]))
    for rule in (*({group: 1} for group in full), *joined):
        removed = sum(each * (full[group] - counts[group]) for group, each in rule.items())
        if removed and (value - other) % removed == 0:
            scaled = {group: each * ((value - other) // removed) for group, each in rule.items()}
            if _explains(scaled, value, full, seen):
                return scaled
    raise NotLearned(f"no group explains that {value} becomes {other}")
