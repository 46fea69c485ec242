"""What a pattern is, and what it edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

#: Of an image: (N, C, H, W) in ONNX, (N, H, W, C) in TFLite.
IMAGE_AXES = 4


class Document(ABC):
    """The content of a model file that can be edited. What no pattern touches stays as it is."""

    @abstractmethod
    def of_kind(self, *kinds: str) -> Iterable[Any]:
        """The operators of these kinds, in order of execution."""

    @abstractmethod
    def data(self) -> bytes:
        """The bytes of the file as edited."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place of a pattern. `place` is the name of the tensor that is computed in another way."""

    place: str


D = TypeVar("D", bound=Document)
S = TypeVar("S", bound=Site)


class Pattern(ABC, Generic[D, S]):
    """Operators that can be written in another form, which computes the same up to rounding."""

    #: As in the output of commands.
    name: str
    runtime: str
    #: The operators around which it has sites.
    kinds: tuple[str, ...]

    @abstractmethod
    def site(self, document: D, operator: Any) -> S | None:
        """The site around an operator of these kinds; None if there is none."""

    @abstractmethod
    def edit(self, document: D, site: S) -> None:
        """Write this site in the form."""

    def apply(self, document: D) -> tuple[str, ...]:
        """Write all sites in the form, also those that appear by it -> their places."""
        places: list[str] = []
        while (site := self._next_site(document, places)) is not None:
            self.edit(document, site)
            places.append(site.place)
        return tuple(places)

    def _next_site(self, document: D, done: Collection[str]) -> S | None:
        """The first site in order of execution whose place is not in `done`."""
        found = (self.site(document, operator) for operator in document.of_kind(*self.kinds))
        return next((site for site in found if site is not None and site.place not in done), None)
