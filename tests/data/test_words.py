"""The keywords of splits in names, beside a restatement of Hugging Face's patterns."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_search.data.words import KEYWORDS, alike_but_for_a_keyword, splits_in, splits_of

_KEYWORDS = [word for words in KEYWORDS.values() for word in words]


def by_patterns(name: str) -> set[str]:
    """What `KEYWORDS_IN_DIR_NAME_BASE_PATTERNS` of `datasets.data_files` matches, for one part of a path."""
    patterns = ("{word}", "{word}[{sep}]*", "*[{sep}]{word}", "*[{sep}]{word}[{sep}]*")
    return {
        split
        for split, words in KEYWORDS.items()
        for word in words
        for pattern in patterns
        if fnmatchcase(name, pattern.format(word=word, sep="-._ 0-9"))
    }


@given(st.lists(st.sampled_from([*_KEYWORDS, "cat", "s", "-", ".", "_", " ", "0", "7", "é", "["]), max_size=6))
def test_names_mean_what_they_mean_to_hugging_face(parts: list[str]) -> None:
    name = "".join(parts)
    assert splits_in(name) == by_patterns(name)
    assert splits_in(name.upper()) == by_patterns(name)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("Training", "train"), ("TRAIN", "train"), ("training_set", "train"), ("seg_train", "train")],
        *[("train2017", "train"), ("0000_train.parquet", "train"), ("Train-0.parquet", "train")],
        *[("valid", "validation"), ("dev", "validation"), ("Val.1", "validation"), ("x validation", "validation")],
        *[("Testing", "test"), ("rps-test-set", "test"), ("eval", "test"), ("my_evaluation", "test")],
    ],
)
def test_keywords_count_in_any_case_set_apart(name: str, split: str) -> None:
    assert splits_of([name]) == {name: split}


@pytest.mark.parametrize("name", ["trainA", "contest", "valley", "trains", "restraint", "Développement", "tests", ""])
def test_a_keyword_inside_a_word_is_none(name: str) -> None:
    assert splits_of([name]) == {}


def test_a_keyword_of_all_names_tells_nothing() -> None:
    assert splits_of(["eval-set-train", "eval-set-test"]) == {"eval-set-train": "train", "eval-set-test": "test"}
    assert splits_of(["train", "train_val"]) == {"train": "train"}  # and the other name says two things
    assert splits_of(["train_test_split"]) == {}


def test_names_that_differ_only_in_a_keyword_are_found() -> None:
    assert alike_but_for_a_keyword(["trainA", "trainB", "testA"]) == ("trainA", "testA")
    assert alike_but_for_a_keyword(["cat", "TrainImages", "testimages"]) == ("TrainImages", "testimages")
    assert alike_but_for_a_keyword(["contest", "valley", "rain", "strain", "trainer"]) is None
