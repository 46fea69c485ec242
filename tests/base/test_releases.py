"""Releases: what pip is asked for, and which is older."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ofa_profiler.base.releases import Wanted, before, check_release, is_of, numbers_of, release_of
from ofa_profiler.errors import UsageError

NUMBERS = st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 9))
RELEASES = NUMBERS.map(lambda numbers: ".".join(map(str, numbers)))


@given(RELEASES, RELEASES)
def test_x_y_is_its_releases_and_x_y_z_is_one(asked: str, version: str) -> None:
    minor = asked.rpartition(".")[0]
    for release in (asked, minor):
        (found,) = Wanted(asked=release).ranges
        assert SpecifierSet(found.specifier).contains(version) == is_of(version, release)


@given(RELEASES, st.none() | RELEASES, st.none() | RELEASES, st.none() | RELEASES)
def test_a_release_beyond_a_limit_is_never_chosen(
    version: str, preferred: str | None, below: str | None, at_most: str | None
) -> None:
    wanted = Wanted(preferred=preferred, below=below, at_most=at_most)
    for found in wanted.ranges:
        if SpecifierSet(found.specifier).contains(version):
            assert below is None or Version(version) < Version(below)
            assert at_most is None or Version(version) <= Version(at_most)
    assert wanted.key.replace(".", "").replace("-", "").isalnum(), "it becomes a part of a path"


@given(RELEASES)
def test_going_back_ends(version: str) -> None:
    assert Version(before(version)) <= Version(version)
    assert not SpecifierSet(f"<{before(version)}").contains(version)


@given(st.text(max_size=30))
def test_any_text_is_a_release_or_one_line(text: str) -> None:
    release_of(text)
    with contextlib.suppress(UsageError):
        assert numbers_of(check_release(text)) is not None


@pytest.mark.parametrize(
    "text",
    ["1", "1.x", "1.2.3.4", "1.2rc1", "", "1.2 ", ">=1.2", "-1.2", "1.2\n", "\u0661.2"],
)
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected X\.Y"):
        check_release(text)


def test_versions_that_runtimes_report() -> None:
    assert release_of("1.31.1") == "1.31.1"
    assert release_of("tflite_runtime 2.14.0") == "2.14.0"
    for other in ("1.2.dev3", "1.20.0+cu12", "fake", "", None, 3):
        assert release_of(other) is None
    assert numbers_of("tflite_runtime 2.14.0") == (2, 14, 0)
    assert numbers_of("1.22.0rc1") == (1, 22, 0)
