"""Architectures and search spaces: JSON and genomes there and back, and nothing invalid accepted."""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import Architecture, Stage, get_space, space_names
from ofa_profiler.errors import UsageError

SPACES = pytest.mark.parametrize("name", space_names())
seeds = st.integers(0, 2**32 - 1)

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10, 300), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["depth", "stages", "x"]), inner)
    ),
    max_leaves=8,
)


def sample(name: str, seed: int) -> Architecture:
    return get_space(name).sample(np.random.default_rng(seed))


# --- JSON ------------------------------------------------------------------------------------------


@given(name=st.sampled_from(space_names()), seed=seeds)
def test_json_there_and_back(name, seed):
    architecture = sample(name, seed)
    text = json.dumps(architecture.to_json())
    assert Architecture.from_json(json.loads(text)) == architecture
    assert hash(Architecture.from_json(json.loads(text))) == hash(architecture)


def places(value, path=()):
    """Every place in a JSON document, as a path of keys and indices."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(document, path, change):
    """A copy of the document in which the value at `path` is replaced, or removed if `change` is `...`."""
    if not path:
        return change
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if change is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = change
    return document


def architecture_or_error(document) -> Architecture | UsageError:
    try:
        return Architecture.from_json(document)
    except UsageError as error:
        return error


@given(name=st.sampled_from(space_names()), seed=seeds, change=json_values | st.just(...), data=st.data())
def test_damaged_json_is_a_usage_error_and_never_another_architecture(name, seed, change, data):
    document = sample(name, seed).to_json()
    path = data.draw(st.sampled_from(list(places(document))))
    damaged = mutated(document, path, change)
    result = architecture_or_error(damaged)
    if isinstance(result, Architecture):
        assert result.to_json() == damaged
    else:
        assert "\n" not in str(result)


@given(value=json_values)
def test_any_json_value_gives_a_usage_error(value):
    with pytest.raises(UsageError):
        Architecture.from_json(value)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (("space",), "ofa-mbv4", "unknown search space 'ofa-mbv4'; choose from"),
        (("resolution",), 33, "space cifar-mbv3 has no resolution 33; choose from 24, 28, 32"),
        (("resolution",), True, "resolution must be an integer, not True"),
        (("stages", 4), ..., "space cifar-mbv3 has 5 stages, but the architecture has 4"),
        (("stages", 1, "depth"), 1, r"stages\[1\] has depth 1 but 4 kernel_sizes"),
        (("stages", 1, "expand_ratios"), [6], r"stages\[1\] has depth 4 but 1 expand_ratios"),
        (("stages", 2, "kernel_sizes", 0), 9, r"stage 2: kernel size 9 is not one of \[3, 5, 7\]"),
        (("stages", 0, "expand_ratios", 3), 5, r"stage 0: expand ratio 5 is not one of \[3, 4, 6\]"),
        (("stages", 0, "kernel_sizes"), "357", r"stages\[0\].kernel_sizes must be a list"),
        (("stages", 0), {"depth": 1, "kernel_sizes": [3], "expand_ratios": [3]}, "stage 0: depth 1 is not one of"),
    ],
)
def test_message_says_what_is_wrong_and_where(path, change, message):
    document = get_space("cifar-mbv3").largest.to_json()
    with pytest.raises(UsageError, match=message):
        Architecture.from_json(mutated(document, path, change))


# --- genomes ---------------------------------------------------------------------------------------


@given(name=st.sampled_from(space_names()), seed=seeds)
def test_encode_inverts_decode_and_drops_what_says_nothing(name, seed):
    space = get_space(name)
    drawn = np.random.default_rng(seed).integers(0, space.n_choices, (20, len(space.genes))).astype(np.int8)
    canonical = space.canonical(drawn)
    assert (space.canonical(canonical) == canonical).all()
    assert space.decode(drawn) == space.decode(canonical)
    encoded = space.encode(space.decode(drawn))
    assert encoded.dtype == np.int8
    assert (encoded == canonical).all()


@SPACES
def test_sampling_is_valid_repeatable_and_even(name):
    space = get_space(name)
    genomes = space.sample_genomes(np.random.default_rng(7), 6000)
    assert (genomes == space.sample_genomes(np.random.default_rng(7), 6000)).all()
    for architecture in space.decode(genomes[:200]):
        space.validate(architecture)
    for i, gene in enumerate(space.genes):
        if gene.switch is None:
            counts = np.bincount(genomes[:, i], minlength=len(gene.choices))
            assert counts.min() > 0.8 * 6000 / len(gene.choices), gene.name


@SPACES
def test_architecture_of_another_space_is_refused(name):
    other = next(n for n in space_names() if n != name)
    with pytest.raises(UsageError, match=f"the architecture belongs to space {other}, not to {name}"):
        get_space(name).encode([sample(other, 0)])


def test_architecture_at_a_resolution_out_of_use_is_not_encoded():
    space = get_space("ofa-mbv3-w1.2")
    architecture = Architecture(space.name, 132, space.largest.stages)
    space.validate(architecture)
    with pytest.raises(UsageError, match="resolution 132 is not one of"):
        space.encode([architecture])
    assert space.with_resolutions([132]).decode(space.with_resolutions([132]).encode([architecture])) == [architecture]


def test_lists_of_unequal_length_are_refused():
    space = get_space("cifar-mbv3")
    stages = (Stage((3, 3), (4,)), *space.largest.stages[1:])
    with pytest.raises(UsageError, match="stage 0: 2 kernel sizes but 1 expand ratios"):
        space.validate(Architecture(space.name, 32, stages))


# --- ops -------------------------------------------------------------------------------------------


@given(name=st.sampled_from(space_names()), seed=seeds)
def test_ops_of_a_network_fit_one_another(name, seed):
    space = get_space(name)
    architecture = sample(name, seed)
    ops = space.ops(architecture)
    assert ops[0].input_shape == (architecture.resolution, architecture.resolution, 3)
    assert ops[-1].output_shape == (space.n_classes,)
    for before, after in pairwise(ops):
        assert before.output_shape == after.input_shape
    blocks = [op for slot, op in space.layout(architecture) if slot.startswith("stage")]
    assert [op.attributes["kernel_size"] for op in blocks] == [
        k for stage in architecture.stages for k in stage.kernel_sizes
    ]


@SPACES
def test_unique_ops_are_exactly_those_of_the_networks(name):
    space = get_space(name)
    resolution = space.resolutions[0]
    small = space.with_resolutions([resolution])
    sampled = {op for a in small.decode(small.sample_genomes(np.random.default_rng(0), 400)) for op in small.ops(a)}
    unique = small.unique_ops()
    assert len(set(unique)) == len(unique)
    assert set(unique) == sampled
    assert set(space.unique_ops([resolution])) == sampled


def test_wrong_resolutions_are_refused():
    with pytest.raises(UsageError, match="has no resolution 225; choose from 128 to 224 in steps of 4"):
        get_space("ofa-mbv3-w1.0").unique_ops([160, 225])
    with pytest.raises(UsageError, match="at least one resolution is needed"):
        get_space("ofa-mbv3-w1.0").unique_ops([])


def test_unknown_space_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown search space 'x'; choose from ofa-mbv3-w1\.0, "):
        get_space("x")
