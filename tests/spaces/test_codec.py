"""The codec on spaces with other genes, in other orders, than those of the package."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.spaces import SmallSpace, registered

from ofa_profiler import Architecture, Stage, get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Stem
from ofa_profiler.spaces import Gene
from ofa_profiler.spaces.codec import Codec
from ofa_profiler.spaces.genes import DEPTH, RESOLUTION
from ofa_profiler.spaces.sampling import leaning_genomes

numbers = st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def small_spaces(draw) -> SmallSpace:
    """Spaces with and without a resolution, a stem and widths, with fixed kinds, and with genes in any order."""
    resolutions = draw(st.just(()) | numbers)
    return SmallSpace(
        resolutions=tuple(sorted(resolutions)),
        valid_resolutions=tuple(sorted(resolutions)),
        depths=tuple(tuple(sorted(depths)) for depths in draw(st.lists(numbers, max_size=3))),
        kernel_sizes=draw(numbers),
        expand_ratios=draw(numbers),
        width_mults=draw(st.just(()) | numbers),
        stem=draw(st.booleans()),
        places=tuple(draw(st.permutations((RESOLUTION, "stem", "stages")))),
    )


def by_hand(space: SmallSpace, values: dict[tuple[str, bool, int | None, int | None], float]) -> Architecture:
    """The architecture of these values, by the definition: nothing of the codec."""
    stages = []
    for stage in range(len(space.depths)):
        depth = int(values[DEPTH, False, stage, None])
        lists = [
            tuple(values.get((kind, False, stage, block), choices[0]) for block in range(depth))
            for kind, choices in (("kernel_size", space.kernel_sizes), ("expand_ratio", space.expand_ratios))
        ]
        stages.append(Stage(*lists, values.get(("width_mult", False, stage, None))))  # type: ignore[arg-type]
    stem = None
    if space.stem:
        depth, first, last = (values[kind, True, None, None] for kind in ("depth", "width_mult", "last_width_mult"))
        stem = Stem(int(depth), first, last)
    resolution = values.get((RESOLUTION, False, None, None))
    return Architecture(space.name, resolution, tuple(stages), stem)  # type: ignore[arg-type]


@given(space=small_spaces(), seed=st.integers(0, 2**32 - 1))
def test_every_genome_is_the_architecture_of_its_values(space, seed):
    drawn = np.random.default_rng(seed).integers(0, space.n_choices, (5, len(space.genes))).astype(np.int8)
    canonical = space.canonical(drawn)
    for row, architecture in zip(drawn, space.decode(drawn), strict=True):
        values = [gene.choices[i] for gene, i in zip(space.genes, row, strict=True)]
        named = {(g.kind, g.stem, g.stage, g.block): v for g, v in zip(space.genes, values, strict=True)}
        assert architecture == by_hand(space, named) == space.from_values(values)
        space.validate(architecture)
    assert (space.encode(space.decode(drawn)) == canonical).all()
    assert space.decode(canonical) == space.decode(drawn)
    assert space.encode([]).shape == (0, len(space.genes))
    if space.genes:
        leaning = leaning_genomes(space, 5, np.random.default_rng(seed))
        assert (space.encode(space.decode(leaning)) == leaning).all()


@given(space=small_spaces(), seed=st.integers(0, 2**32 - 1))
def test_json_there_and_back(space, seed):
    with registered(space):
        architecture = space.sample(np.random.default_rng(seed))
        document = architecture.to_json()
        assert Architecture.from_json(copy.deepcopy(document)) == architecture
        assert ("resolution" in document) == bool(space.resolutions)
        assert ("stem" in document) == space.stem


@given(space=small_spaces(), data=st.data())
def test_what_is_valid_is_what_can_be_encoded(space, data):
    """Any architecture: it is encoded and decoded to itself, or refused with a reason."""
    value = st.integers(1, 9) | st.sampled_from([None, 0.5, 300])
    stages = st.builds(
        Stage,
        st.lists(st.integers(1, 9), max_size=4).map(tuple),
        st.lists(st.integers(1, 9), max_size=4).map(tuple),
        value,
    )
    own = space.sample(np.random.default_rng(0))
    drawn = Architecture(
        space=data.draw(st.sampled_from([space.name, "another"])),
        resolution=data.draw(st.just(own.resolution) | value),  # type: ignore[arg-type]
        stages=data.draw(st.just(own.stages) | st.lists(stages, max_size=3).map(tuple)),
        stem=data.draw(st.just(own.stem) | st.none() | st.builds(Stem, value, value, value)),
    )
    if drawn.stages and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(drawn.stages) - 1))
        drawn = replace(drawn, stages=(*drawn.stages[:at], data.draw(stages), *drawn.stages[at + 1 :]))
    try:
        genomes = space.encode([drawn])
    except UsageError:
        with pytest.raises(UsageError, match=r"\w+ \w+"):
            space.validate(drawn)
    else:
        assert space.decode(genomes) == [drawn]
        space.validate(drawn)


@pytest.mark.parametrize(
    ("space", "architecture", "message"),
    [
        (SmallSpace(), Architecture("small", 32, ()), "this space has no choice of 'resolution'"),
        (
            SmallSpace(resolutions=(4, 8), valid_resolutions=(4, 8)),
            Architecture("small", None, ()),
            "space small has no resolution None; choose from 4, 8",
        ),
        (SmallSpace(), Architecture("small", None, (), Stem(1, 1, 1)), "space small has no choice of stem"),
        (SmallSpace(stem=True), Architecture("small", None, ()), "space small needs a 'stem'"),
        (
            SmallSpace(stem=True),
            Architecture("small", None, (), Stem(1, 9, 1)),
            r"stem: width mult 9 is not one of \[1, 2, 3\]",
        ),
        (
            SmallSpace(depths=((1,),)),
            Architecture("small", None, ()),
            "1 stages, but the architecture has 0",
        ),
        (
            SmallSpace(depths=((2,),), kernel_sizes=(7,)),
            Architecture("small", None, (Stage((7, 5), (1, 2)),)),
            r"stage 0: kernel size 5 is not one of \[7\]",
        ),
        (
            SmallSpace(depths=((2,),)),
            Architecture("small", None, (Stage((3, 5), (1, 2), 0.5),)),
            "stage 0: this space has no choice of 'width_mult'",
        ),
        (
            SmallSpace(depths=((1, 2),)),
            Architecture("small", None, (Stage((3,) * 258, (1,)),)),
            r"stage 0: 258 kernel sizes but 1 expand ratios|stage 0: depth 258 is not one of",
        ),
    ],
)
def test_message_says_what_is_wrong(space, architecture, message):
    with pytest.raises(UsageError, match=message):
        space.validate(architecture)


def test_a_space_without_a_resolution():
    space = SmallSpace()
    assert space.resolution_gene is None
    assert space.at(None) is space
    assert space.sample(np.random.default_rng(0)).resolution is None
    assert len(space.unique_ops()) > 2
    with pytest.raises(UsageError, match="space small has no choice of resolution"):
        space.with_resolutions([32])
    with pytest.raises(UsageError, match="space small has no choice of resolution"):
        space.at(32)


def test_genes_that_no_field_holds_are_refused():
    with pytest.raises(ValueError, match=r"stage0\.block0\.colour: no field of an architecture stores this"):
        Codec("x", (Gene("colour", (1, 2), stage=0, block=0),), {})
    with pytest.raises(ValueError, match="a gene belongs to both the stem and a stage"):
        Codec("x", (Gene("depth", (1, 2), stem=True, stage=0),), {})


@pytest.mark.parametrize("name", space_names())
def test_names_of_genes_are_their_places(name):
    space = get_space(name)
    for position, gene in enumerate(space.genes):
        place = {"stem": gene.stem, "stage": gene.stage, "block": gene.block}
        assert space.position(gene.kind, **place) == position
    names = [gene.name for gene in space.genes]
    assert names[0] == "resolution"
    assert len(set(names)) == len(names)
    assert {"stage0.depth", "stage1.block1.expand_ratio"} <= set(names)
