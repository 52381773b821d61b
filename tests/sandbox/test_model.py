"""The workloads' model: what state of the cluster gives which curve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gameday.sandbox.fleet import model
from gameday.sandbox.fleet.model import Replica, Serving

pytestmark = pytest.mark.fast
ALL = model.UNDISTURBED.replicas
WORKERS = model.UNDISTURBED.workers


def quantile(traffic: dict[str, Serving], share: float) -> float:
    pairs = sorted(p for serving in traffic.values() for p in serving.latencies)
    total, seen = sum(rate for _, rate in pairs), 0.0
    for latency, rate in pairs:
        seen += rate
        if seen >= share * total - 1e-9:
            return latency
    raise AssertionError("no traffic")


def test_undisturbed_everything_is_served_within_half_a_second() -> None:
    traffic, refused = model.inference(ALL)
    assert refused == 0
    assert sum(s.served for s in traffic.values()) == pytest.approx(model.DEMAND)
    assert quantile(traffic, 0.99) < 0.3


def test_latency_grows_as_replicas_go_and_the_rest_is_refused_in_the_end() -> None:
    measured = [quantile(model.inference(ALL[:n])[0], 0.99) for n in (12, 10, 8, 7)]
    assert measured == sorted(measured)
    assert measured[-1] > 0.5
    assert model.inference(ALL[:4])[1] > 0
    assert model.inference([])[1] == model.DEMAND


def test_a_delay_is_added_to_every_answer() -> None:
    slow = [replace(r, delay=0.3) for r in ALL]
    before, after = (quantile(model.inference(r)[0], 0.5) for r in (ALL, slow))
    assert after == pytest.approx(before + 0.3)


def test_loss_makes_the_tail_longer_before_it_makes_errors() -> None:
    traffic, _ = model.inference([replace(r, loss=0.05) for r in ALL])
    assert quantile(traffic, 0.99) > quantile(model.inference(ALL)[0], 0.99) + 0.1
    assert sum(s.failed for s in traffic.values()) < 1


def test_who_is_cut_off_fails_its_share() -> None:
    traffic, _ = model.inference([replace(ALL[0], cut=True), *ALL[1:]])
    assert sum(s.failed for s in traffic.values()) == pytest.approx(model.DEMAND / 12)


def test_a_replica_that_is_not_ready_or_not_there_gets_no_traffic() -> None:
    traffic, _ = model.inference([replace(ALL[0], ready=False), replace(ALL[1], reachable=False), *ALL[2:]])
    assert len(traffic) == 10


@pytest.mark.parametrize("worker", [{"ready": False}, {"reachable": False}, {"cut": True}, {"loss": 1.0}])
def test_training_needs_the_whole_gang(worker: dict[str, object]) -> None:
    lost = replace(WORKERS[0], **worker)  # type: ignore[arg-type]
    assert model.training_rate([lost, *WORKERS[1:]]) == 0
    assert model.training_rate(WORKERS[1:]) == 0


def test_training_goes_at_the_slowest_workers_pace() -> None:
    whole = model.training_rate(WORKERS)
    assert whole == model.SAMPLES * model.WORKERS
    assert model.training_rate([replace(WORKERS[0], delay=0.05), *WORKERS[1:]]) == pytest.approx(whole / 2)


def test_without_its_controller_the_queue_admits_nothing() -> None:
    assert model.admission_rate(0, 10) == 0
    assert model.admission_rate(1, 10) > model.ARRIVALS
    assert Replica("a", "n").ready
