"""Which parquet files belong to which split, by their names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import paths_of

from ofa_search.data.classes import NotUnderstood
from ofa_search.data.shards import sort_shards


def sorted_names(text: str) -> dict[str, list[str]]:
    return {split: list(files) for split, files in sort_shards(paths_of(text)).splits.items()}


@pytest.mark.parametrize(
    "text",
    [
        "cifar10-{train,test}.parquet",
        "beans-{train,test,validation}.parquet",
        "candels-labeled-{train,validation,test}-data.parquet",
        "{train,test}_0.parquet",
        "{train,test}.0.parquet",
        "0000_{train,test}.parquet",
        "{Train,Test}-0.parquet",
        "{train,test}.parquet",
        "parquet-{train,test}-00000-of-00001.parquet",
        "{train,validation,test}-00000-of-00001-cca7aec18a9a4de2.parquet",
        "data/{train,validation,test}-00000-of-00001.parquet",
        "default/{train,test}/0000.parquet",
        "{train,test}/{a,b}/0000.parquet",
        "plain_text/partial-{train,test}/0000.parquet",
        "eval-set-{train,validation}.parquet",
    ],
)
def test_the_keyword_of_a_split_is_found_anywhere(text: str) -> None:
    for split, files in sorted_names(text).items():
        assert files == [path for path in paths_of(text) if split in path.lower().replace("eval-set", "")]
    assert set(sorted_names(text)) >= {"train"}


@given(
    st.dictionaries(st.sampled_from(["train", "test", "validation"]), st.integers(1, 3), min_size=2),
    st.sampled_from(["", "data/", "a/b/"]),
    st.sampled_from(["", "cifar10-", "x_", "0 "]),
)
def test_shards_of_each_split_stay_together(counts: dict[str, int], above: str, before: str) -> None:
    expected = {
        split: [f"{above}{before}{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
        for split, count in counts.items()
    }
    found = sort_shards([path for files in expected.values() for path in files])
    assert {split: list(files) for split, files in found.splits.items()} == expected
    assert found.remarks == ()


def test_names_without_a_keyword_are_one_data_set() -> None:
    assert sorted_names("part-{0,1}.parquet") == {"all": ["part-0.parquet", "part-1.parquet"]}
    assert sorted_names("train/a.parquet b.parquet") == {"train": ["train/a.parquet"]}
    assert str(sort_shards(["train.parquet", "extra.parquet"]).remarks[0]).startswith(
        "left out: extra.parquet: its name"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar{train,test}.parquet", "cifartrain.parquet and cifartest.parquet look like splits"),
        ("train_test.parquet other.parquet", "train_test.parquet is named after two splits"),
        ("{cifar10,cifar100}/train-00000-of-00001.parquet", "one split in several folders .cifar10, cifar100."),
        ("{a,b}/{train,test}/0000.parquet", "one split in several folders"),
        ("train-00000-of-00001-{abc,def}.parquet", "shards of two writings"),
        ("train-00000-of-{00001,00002}.parquet", "shards of two writings"),
        ("data-00000-of-{00001,00002}.parquet", "shards of two writings"),
    ],
)
def test_what_would_mix_or_repeat_images_is_refused(text: str, message: str) -> None:
    with pytest.raises(NotUnderstood, match=message):
        sort_shards(paths_of(text))


def test_missing_shards_are_named() -> None:
    (note,) = sort_shards(["data/train-00000-of-00003.parquet", "data/test-00000-of-00001.parquet"]).remarks
    assert str(note) == "note: data/train: 2 of 3 shards are missing (00001-of-00003, 00002-of-00003)"
    (note,) = sort_shards(["train-00007-of-00300-ab12.parquet"]).remarks
    assert str(note).startswith("note: train: 299 of 300 shards are missing (00000-of-00300, 00001-of-00300, ")
    assert str(note).endswith(", …)")


@given(st.lists(st.text(alphabet="train-tesval 0of/.x", min_size=1, max_size=30), max_size=6, unique=True))
def test_no_file_is_in_two_splits(paths: list[str]) -> None:
    try:
        found = sort_shards(paths)
    except NotUnderstood:
        return
    used = [path for files in found.splits.values() for path in files]
    assert len(used) == len(set(used))
    assert set(used) <= set(paths)
