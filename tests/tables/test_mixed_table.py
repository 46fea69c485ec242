"""The latency of mixed networks from two tables: against sums by hand, and exact over the whole space."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spaces import SmallSpace, registered

from ofa_profiler import LatencyTable, get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.boundary import boundary_op
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.tables.corrections.mixed import COLUMNS, MixedCorrection, mixed_features
from ofa_profiler.tables.corrections.regression import FEATURES
from ofa_profiler.tables.mixed import MixedTable
from ofa_profiler.tables.row import Row

DEVICE = {"model": "test board", "machine": "x86_64"}


def table_of(space, precision, seed, *, boundary=True, **metadata) -> LatencyTable:
    """A table with random times and a random correction."""
    rng = np.random.default_rng(seed)
    ops = [*space.unique_ops(), *(MixedSpace.of(space).boundary_ops if boundary and precision == "int8" else ())]
    rows = [Row.from_op(op, batch=1, precision=precision, samples_ms=[rng.uniform(0.01, 1)]) for op in ops]
    correction = Regression(dict(zip(FEATURES, rng.uniform(0.1, 1, len(FEATURES)), strict=True)), 0.05)
    about = {"spaces": [space.name], "precision": precision, "runtime": "litert", "device": DEVICE, "threads": 1}
    return LatencyTable(precision, tuple(rows), {**about, "correction": correction.to_json(), **metadata})


def mixed_table(space, seed=0, **how) -> MixedTable:
    return MixedTable.of([table_of(space, "int8", seed + 1, **how), table_of(space, "fp32", seed)])


def random_correction(seed) -> MixedCorrection:
    rng, coefficients = np.random.default_rng(seed), {}
    for group, name in COLUMNS:
        coefficients.setdefault(group, {})[name] = float(rng.uniform(0.1, 1))
    return MixedCorrection(coefficients)


def by_hand(table: MixedTable, space: MixedSpace, architecture) -> float:
    """The definition, op by op."""
    known = table.correction.coefficients
    ops, precisions = (
        space.plain.ops(space.plain_architecture(architecture)),
        [*space.precisions(architecture).values()],
    )
    total = (known[precisions[0]]["constant"] + known[precisions[-1]]["constant"]) / 2
    for op, precision in zip(ops, precisions, strict=True):
        ms = (table.fp32 if precision == "fp32" else table.int8).latency_ms(op)
        values = {
            "ms": ms,
            "ops": 1,
            "boundary": op.boundary / 1e6,
            "inside": op.inside / 1e6,
            "parameters": op.params / 1e6,
        }
        total += sum(known[precision][name] * value for name, value in values.items())
    for (op, before), after in zip(zip(ops, precisions, strict=True), precisions[1:], strict=False):
        if before != after:
            kind = "quantize" if after == "int8" else "dequantize"
            change = boundary_op(kind, op.output_shape)
            values = {"ms": table.int8.latency_ms(change), "changes": 1, "elements": np.prod(op.output_shape) / 1e6}
            total += sum(known[kind][name] * value for name, value in values.items())
    return float(total)


@pytest.mark.parametrize("name", space_names())
def test_costs_are_the_sums_by_hand(name):
    plain = get_space(name)
    plain = plain.with_resolutions(plain.valid_resolutions[:2])
    table = mixed_table(plain).with_correction(random_correction(seed=5))
    space = MixedSpace.of(plain)
    genomes = space.sample_genomes(np.random.default_rng(1), 12)
    architectures = space.decode(genomes)
    expected = [by_hand(table, space, architecture) for architecture in architectures]
    np.testing.assert_allclose(table.cost(space).evaluate(genomes), expected, rtol=1e-9)
    np.testing.assert_allclose(table.predict_ms(architectures), expected, rtol=1e-9)
    features = mixed_features(architectures, table.op_ms)
    np.testing.assert_allclose(features @ table.correction.weights, expected, rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_minimum_and_maximum_are_exact(seed):
    plain = SmallSpace(depths=((1, 2), (2, 3)), kernel_sizes=(3,), expand_ratios=(1, 2))
    with registered(plain):
        space = MixedSpace.of(plain)
        table = mixed_table(plain, seed).with_correction(random_correction(seed))
        cost = table.cost(space)
        every = np.array(list(product(*(range(n) for n in space.n_choices))), dtype=np.int8)
        every = np.unique(space.canonical(every), axis=0)
        values = cost.evaluate(every)
        for found, wanted in ((cost.minimum(), values.min()), (cost.maximum(), values.max())):
            assert found[0] == pytest.approx(wanted)
            assert cost.evaluate(found[1][np.newaxis])[0] == pytest.approx(wanted)


def test_before_a_fit_one_precision_is_predicted_as_by_its_table():
    plain = get_space("cifar-mbv3")
    table, space = mixed_table(plain), MixedSpace.of(plain)
    architectures = plain.decode(plain.sample_genomes(np.random.default_rng(0), 10))
    for bits, pure in ((32, table.fp32), (8, table.int8)):
        mixed = [space.with_bits(a, [bits] * len(plain.layout(a))) for a in architectures]
        np.testing.assert_allclose(table.predict_ms(mixed), pure.predict_ms(architectures), rtol=1e-9)


def test_a_fit_finds_the_coefficients():
    plain = get_space("cifar-mbv3")
    table, space = mixed_table(plain), MixedSpace.of(plain)
    truth = table.with_correction(random_correction(seed=9))
    drawn = space.decode(space.sample_genomes(np.random.default_rng(2), 120))
    features = mixed_features(drawn, table.op_ms)
    fitted = table.correction.fitted(features, truth.predict_ms(drawn), [str(i) for i in range(120)])
    others = space.decode(space.sample_genomes(np.random.default_rng(3), 30))
    np.testing.assert_allclose(table.with_correction(fitted).predict_ms(others), truth.predict_ms(others), rtol=0.01)
    assert fitted.interval_factors(0.95) is not None
    assert MixedCorrection.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_the_fitted_correction_of_both_files_is_used(tmp_path):
    plain = get_space("cifar-mbv3")
    said = {"mixed": {"correction": random_correction(seed=1).to_json()}}
    table = mixed_table(plain)
    both = [replace(t, metadata={**t.metadata, **said}) for t in table.tables]
    assert MixedTable.of(both).correction == random_correction(seed=1)
    assert MixedTable.of([both[0], table.int8]).correction == table.correction


def test_what_does_not_belong_together_is_refused():
    plain = get_space("cifar-mbv3").at(32)
    fp32, int8 = table_of(plain, "fp32", 0), table_of(plain, "int8", 1)
    for tables, words in (
        ([fp32], r"a table of fp32 and one of int8, not fp32 \(fp32\)"),
        ([fp32, fp32], "a table of fp32 and one of int8"),
        ([fp32, table_of(plain, "int8", 1, threads=4)], r"differ in threads \(1 and 4\); measure both in one session"),
        ([fp32, table_of(plain, "int8", 1, device={"model": "other"})], "of different devices"),
        (
            [table_of(plain, each, 0, device={**DEVICE, "unit": each}) for each in ("fp32", "int8")],
            r"of different devices \(unit 'fp32', now 'int8'\)",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            MixedTable.of(tables)
    without = MixedTable.of([fp32, table_of(plain, "int8", 1, boundary=False)])
    with pytest.raises(UsageError, match=r"does not contain \w+-input:.*, a change of precision; measure both"):
        without.cost(MixedSpace.of(plain))
    with pytest.raises(UsageError, match="predict networks of cifar-mbv3-mixed, not of cifar-mbv3"):
        MixedTable.of([fp32, int8]).cost(plain)


def test_a_failed_op_costs_infinity_in_its_precision_alone():
    plain = get_space("cifar-mbv3").at(32)
    table, space = mixed_table(plain), MixedSpace.of(plain)
    stem = plain.layout(plain.at(32).smallest)[0][1]
    rows = [
        Row.failed(r.description, batch=1, precision="int8", error="no") if r.op == stem.key else r
        for r in table.int8.rows
    ]
    broken = MixedTable.of([table.fp32, replace(table.int8, rows=tuple(rows))])
    genomes = space.sample_genomes(np.random.default_rng(0), 50)
    is_int8 = genomes[:, space.bits_gene(0)] == 0
    assert (np.isinf(broken.cost(space).evaluate(genomes)) == is_int8).all()


def test_pairs_of_slots_are_those_of_the_layout():
    space = get_space("ofa-resnet50-mixed").at(128)
    architecture = space.sample(np.random.default_rng(0))
    assert len(list(pairwise(space.layout(architecture)))) == len(architecture.bits) - 1
