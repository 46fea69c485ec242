"""Doubts: everything that says that the figures of a verification may be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from ofa_profiler import get_space
from ofa_profiler.protocol.records import Device, End
from ofa_profiler.tables.doubts import Doubt
from ofa_profiler.tables.table import LatencyTable, Row
from ofa_profiler.verification.doubts import other_device, verification_doubts
from ofa_profiler.verification.result import Subnet, Verification

SPACE = get_space("cifar-mbv3").with_resolutions([24])
ROWS = tuple(
    Row.from_op(op, batch=1, precision="fp32", samples_ms=[(op.macs + 1000 + i) / 2e7])
    for i, op in enumerate(SPACE.unique_ops())
)


def table_of(**metadata: Any) -> LatencyTable:
    return LatencyTable("board", ROWS, metadata)


def verification_of(noise: float, before: Any, after: Any, **device: Any) -> Verification:
    pairs = [(0.9, 1.0), (1.8, 2.0), (2.7, 3.0)]
    subnets = [Subnet(SPACE.smallest, p, ms * (1 + noise / 2), ms * (1 + noise), ms) for p, ms in pairs]
    said = {"time": "2026-01-01", "model": "Pi 4", "runtime": {"version": "1.2"}, "uncontrolled": [], **device}
    end = End.from_json({"cut_short": [], "noisy": [], "after": after})
    return Verification(tuple(subnets), Device.from_json({**said, "before": before}), end, 0, "2026-01-01")


def doubts(before: Any, after: Any, metadata: dict[str, Any], noise: float = 0.0) -> list[str]:
    verification = verification_of(noise, before, after, power_mode="MAXN", cores_used=[3])
    return list(map(str, verification_doubts(table_of(**metadata), verification)))


@pytest.mark.parametrize(
    ("before", "after", "metadata", "noise", "words"),
    [
        ({}, {}, {"device": {"model": "Pi 5"}}, 0, "another device (model 'Pi 5', now 'Pi 4')"),
        ({}, {}, {"device": {"power_mode": "10W"}}, 0, "another device (power_mode '10W', now 'MAXN')"),
        ({}, {}, {"device": {"cores_used": [0]}}, 0, "in another way (cores_used (0,), now (3,))"),
        ({}, {}, {"runtime_version": "1.1"}, 0, "in another way (runtime_version '1.1', now '1.2')"),
        ({"temperature_c": 40}, {"temperature_c": 71}, {}, 0, "from 40 to 71 degrees"),
        ({"mhz": {"3": 2400}}, {"mhz": {"3": 1500}}, {}, 0, "core 3 went from 2400 to 1500 MHz"),
        ({}, {}, {}, 0.3, "measurements of the same networks differ by 30.0%, while the error is 21.7%"),
        ({}, {}, {}, 0.06, "measurements of the same networks differ by 6.0%, while the error is 12.6%"),
    ],
)
def test_doubts(
    before: dict[str, Any],
    after: dict[str, Any],
    metadata: dict[str, Any],
    noise: float,
    words: str,
) -> None:
    (doubt,) = doubts(before, after, metadata, noise)
    assert words in doubt


@pytest.mark.parametrize("unknown", [{}, {"temperature_c": None, "mhz": {"0": None}}, {"mhz": "fast"}, "hot", None])
def test_what_could_not_be_read_is_no_doubt(unknown: Any) -> None:
    same = {"device": {"model": "Pi 4", "soc": None}, "runtime_version": "1.2"}
    assert doubts(unknown, unknown, same) == []
    assert doubts({"temperature_c": 40, "mhz": {"0": 1}}, unknown, {"device": "a phone"}) == []


def test_notes_of_the_device_come_first() -> None:
    verification = verification_of(0.0, {}, {}, uncontrolled=["the governor cannot be read"])
    found = verification_doubts(table_of(runtime_version="1.1"), verification)
    assert found[0] == Doubt("the governor cannot be read", is_note=True)
    assert [doubt.is_note for doubt in found] == [True, False]


@pytest.mark.parametrize(
    ("described", "is_other"),
    [
        ({"model": "Pi 4", "soc": "bcm2711", "machine": "aarch64", "power_mode": None}, False),
        ({"model": "Pi 4"}, False),  # an older table says less
        ({"model": "Pi 4", "cores_used": [0]}, False),  # other cores of the same device
        ({"model": "Pi 4", "machine": "armv7l"}, True),
        ({"model": "Pi 5"}, True),
    ],
)
def test_other_devices(described: dict[str, Any], is_other: bool) -> None:
    device = Device.from_json(
        {"time": "2026-01-01", "model": "Pi 4", "soc": "bcm2711", "machine": "aarch64", "cores_used": [3]}
    )
    assert bool(other_device(table_of(device=described), device)) == is_other
