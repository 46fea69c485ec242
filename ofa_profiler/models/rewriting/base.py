"""What a pattern is, and what it edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar


class Document(ABC):
    """The content of a model file that can be edited. What no pattern touches stays as it is."""

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

    @abstractmethod
    def next_site(self, document: D, done: frozenset[str]) -> S | None:
        """The first site in order of execution whose place is not in `done`; None if there is none."""

    @abstractmethod
    def edit(self, document: D, site: S) -> None:
        """Write this site in the form."""

    def apply(self, document: D) -> tuple[str, ...]:
        """Write all sites in the form, also those that appear by it -> their places."""
        places: list[str] = []
        while (site := self.next_site(document, frozenset(places))) is not None:
            self.edit(document, site)
            places.append(site.place)
        return tuple(places)
