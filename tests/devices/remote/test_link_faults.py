"""Measuring over a real ssh connection, with faults of the link: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from dataclasses import replace

import pytest
from support.counting import Counting
from support.kits import QUICK, bytes_model, conv_model
from support.proxy import Damage
from support.remotes import SETTINGS, SYSTEM, agents_of, at, check, quick, results_on

from ofa_profiler.devices import open_device
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure

# --- without faults -----------------------------------------------------------------------------------


def test_measures_and_leaves_the_results_on_the_device(device, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"
    measured = measure(device, models, SETTINGS, journal=journal)
    assert [m.ok for m in measured.values()] == [True] * 4
    check(journal, store, models)
    assert store.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (store / "models").iterdir()) == sorted(m.path.name for m in models)
    assert not list(store.glob(".incoming*"))


def test_steps_do_not_grow_with_the_number_of_models_and_nothing_is_sent_twice(ssh_server, me, store, tmp_path):
    counts = []
    many = [bytes_model(tmp_path / "m", f"op{i}", os.urandom(20_000)) for i in range(40)]
    for models in (many[:2], many, many):
        device = quick(f"ssh:127.0.0.1:{ssh_server.port}")
        shell = Counting(type(device).connect(device))
        device.connect = lambda shell=shell: shell
        with device:
            measured = measure(device, models, replace(QUICK, min_rounds=1, max_rounds=1))
        assert {m.status for m in measured.values()} == {"failed"}, "random bytes are no models"
        counts.append((shell.opened, shell.sent))
    few, all_, again = counts
    assert again[0] <= all_[0] == few[0] <= 5
    assert all_[1] - few[1] > 34 * 20_000
    assert again[1] < few[1] + 40 * 1000


def test_options_reach_the_agent(ssh_server, me, store, models):
    core = max(os.sched_getaffinity(0))
    options = replace(SYSTEM, cores=(core,))
    with open_device(f"ssh:127.0.0.1:{ssh_server.port}", options) as device:
        records = {}
        journal = store.parent / "cores.jsonl"
        measure(device, models[:1], QUICK, journal=journal)
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        journal.unlink()
    assert records[1]["cores_used"] == [core]
    with (
        open_device(f"ssh:127.0.0.1:{ssh_server.port}", replace(SYSTEM, cores=(4000,))) as device,
        pytest.raises(UsageError, match="cores"),
    ):
        measure(device, models[:1], QUICK)


def test_a_model_that_crashes_the_worker_fails_alone(device, models, store, tmp_path):
    broken = bytes_model(tmp_path, "broken", b"no model")
    measured = measure(device, [models[0], broken], QUICK)
    assert measured["op 1"].ok
    assert not measured["broken"].ok


# --- faults on the way --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("visits", [0, 7])
def test_a_cut_connection_is_made_again(proxy, models, store, tmp_path, visits):
    journal = tmp_path / "j.jsonl"
    told: list[str] = []
    cut = at(visits, proxy.cut)

    def progress(state: MeasuringProgress) -> None:
        cut(state)
        told.append(state.waiting)

    # Long visits: a slow host must not find everything measured by the time that it cuts.
    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        measure(device, models, longer, journal=journal, progress=progress)
    assert proxy.accepted == 2
    assert any("connection is lost" in words and "trying again" in words for words in told)
    check(journal, store, models)


def test_a_connection_that_was_cut_before_anything_began(proxy, models, store):
    """While models are exported, for instance, which takes minutes."""
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        proxy.cut()
        assert device.describe().time
    assert proxy.accepted == 2


def test_a_connection_that_is_cut_at_the_very_first(proxy, models, store):
    proxy.cut_after = 9000  # we were let in, and have sent half of the first question
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        assert device.describe().time
    assert proxy.accepted == 2


@pytest.mark.slow
def test_a_connection_that_is_cut_while_models_are_sent(proxy, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"
    heavy = [conv_model(tmp_path / "heavy", f"heavy {size}", size) for size in (9, 11)]
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(3_000_000))
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        device.describe()
        proxy.cut_after = proxy.passed + 1_500_000
        measured = measure(device, [*models, *heavy, ballast], SETTINGS, journal=journal)
    assert proxy.accepted == 2
    assert [m.ok for m in measured.values()] == [True] * 6 + [False]
    assert not list(store.glob(".incoming*"))
    assert results_on(store).read_bytes() == journal.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "life"), [(12_000_000, 3_500_000), (3_000_000, 700_000)])
def test_a_link_that_never_lasts_for_one_file(proxy, store, tmp_path, monkeypatch, size, life):
    """What arrived of a large file need not come again, so every connection brings its end nearer.

    An ssh server takes 2 MB before a program has read them, and a cut takes them away again: on a link that lasts
    for less, every piece is waited for.
    """
    monkeypatch.setattr("ofa_profiler.devices.remote.device._UPLOAD_PAUSE_S", 0.05)
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(size))
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        proxy.life = life
        measured = measure(device, [ballast], SETTINGS)
    assert proxy.accepted >= -(-size // life), "fewer connections cannot carry it"
    assert not measured["ballast"].ok, "it has arrived, and is no model"
    assert (store / "models" / ballast.path.name).read_bytes() == ballast.path.read_bytes()
    assert not list((store / "pieces").iterdir())


@pytest.mark.slow
def test_a_link_that_brings_nothing_is_given_up(proxy, store, tmp_path, monkeypatch):
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(3_000_000))
    monkeypatch.setattr("ofa_profiler.devices.remote.device._UPLOAD_PAUSE_S", 0.05)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        device.describe()
        device.waits_s = (0.2,)
        proxy.life = 200_000  # a piece has more
        with pytest.raises(DeviceError, match="the connection is lost"):
            measure(device, [ballast], SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_byte_that_is_lost_changed_or_too_much_costs_another_try(proxy, models, store, tmp_path, monkeypatch, seed):
    """Wherever it is: in either direction, from the login (the first 3 kB) to the results."""
    for module in ("device", "shell"):
        monkeypatch.setattr(f"ofa_profiler.devices.ssh.{module}.ANSWER_TIMEOUT_S", 5.0)
    monkeypatch.setattr("ofa_profiler.devices.remote.shell.SILENCE_S", 5.0)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._HEARTBEAT_S", 0.5)
    rng = random.Random(seed)
    kind, upstream = rng.choice(["drop", "change", "add"]), rng.random() < 0.5
    damage = Damage(round(10 ** rng.uniform(2, 3.9)), kind, upstream=upstream)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        device.close()
        proxy.damage = damage
        measure(device, models, SETTINGS, journal=tmp_path / "j.jsonl")
    assert damage.done
    check(tmp_path / "j.jsonl", store, models)


@pytest.mark.slow
def test_a_link_that_dies_without_a_word(proxy, models, store, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_profiler.devices.remote.shell.SILENCE_S", 4.0)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._HEARTBEAT_S", 0.3)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._AGENT_PATIENCE_S", 2)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._STOP_TIMEOUT_S", 0.5)
    journal = tmp_path / "j.jsonl"
    settings = replace(SETTINGS, visit_s=0.3, max_visit_samples=100_000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        measure(device, models, settings, journal=journal, progress=at(5, proxy.stall))
    check(journal, store, models)
    assert proxy.accepted >= 2


@pytest.mark.slow
def test_an_agent_outlives_a_silent_link_only_for_its_patience(proxy, ssh_server, models, store, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_profiler.devices.remote.device._AGENT_PATIENCE_S", 2)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._HEARTBEAT_S", 0.3)
    monkeypatch.setattr("ofa_profiler.devices.remote.device._STOP_TIMEOUT_S", 0.5)
    gone: list[float] = []

    def pull() -> None:
        proxy.stall()
        assert agents_of(ssh_server)
        deadline = time.monotonic() + 300
        while agents_of(ssh_server) and time.monotonic() < deadline:
            time.sleep(0.05)
        gone.append(deadline - time.monotonic())
        raise KeyboardInterrupt

    settings = replace(SETTINGS, visit_s=5.0, max_visit_samples=1000, min_visit_samples=1000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device, pytest.raises(KeyboardInterrupt):
        measure(device, models, settings, progress=at(1, pull))
    assert gone[0] > 0


def test_no_agent_survives_its_connection(ssh_server, proxy, models, store):
    def pull() -> None:
        proxy.cut()
        deadline = time.monotonic() + 300
        while agents_of(ssh_server):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt

    with quick(f"ssh:127.0.0.1:{proxy.port}") as device, pytest.raises(KeyboardInterrupt):
        measure(device, models, replace(SETTINGS, max_rounds=4), progress=at(3, pull))


@pytest.mark.slow
def test_two_hosts_never_measure_at_once(ssh_server, me, store, models, tmp_path):
    """The second waits for the first, says so, and then does its own."""
    spec = f"ssh:127.0.0.1:{ssh_server.port}"
    waited: list[str] = []
    second: list[dict] = []

    def start_second() -> None:
        def run() -> None:
            with quick(spec) as other:
                second.append(measure(other, models[:1], QUICK, progress=lambda state: waited.append(state.waiting)))

        thread.append(threading.Thread(target=run))
        thread[0].start()
        deadline = time.monotonic() + 300
        while not any(waited):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    thread: list[threading.Thread] = []
    longer = replace(SETTINGS, visit_s=0.4, max_visit_samples=1_000_000)
    with quick(spec) as device:
        first = measure(device, models, longer, progress=at(2, start_second))
    thread[0].join(300)
    assert len(first) == 4
    assert second[0]["op 1"].ok
    assert "waiting for another measurement on this device" in waited
