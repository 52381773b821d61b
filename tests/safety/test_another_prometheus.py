"""A Prometheus of another cluster proves nothing of this one, and preflight says so."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.prometheus.client import Prometheus
from gameday.platform.world import World
from gameday.safety.plan import Plan
from gameday.safety.preflight import prometheus
from tests.safety.cases import case
from tests.support.promlike import PrometheusLike
from tests.support.unruly import unruly

pytestmark = pytest.mark.fast
ASKS = [{"name": "up", "prometheus": {"query": "up"}, "is": "== 1"}]


@pytest.mark.parametrize(
    ("older", "said"),
    [
        ((), ""),  # without kube-state-metrics nothing is known
        ((0,), ""),
        ((86400, 0), ""),  # one that several clusters write to
        ((86400,), "seems to watch another cluster: its kube-system was made"),
    ],
)
async def test_a_prometheus_of_another_cluster_is_named(
    older: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    like = PrometheusLike()
    async with unruly(tmp_path) as server, await Kube.connect(server.kubeconfig) as kube:
        space = await kube.get(Ref("v1", "Namespace", "kube-system"))
        made = datetime.fromisoformat(space["metadata"]["creationTimestamp"]).timestamp()
        series = [f'{{"metric":{{}},"value":[{time.time():.3f},"{made - by:.0f}"]}}' for by in older]
        result = f'{{"resultType":"vector","result":[{",".join(series)}]}}'
        answer = f'{{"status":"success","data":{result}}}'
        like.lie = answer.encode()
        async with Prometheus(await like.start()) as client:
            (found,) = await prometheus(case(tmp_path, Plan(1), World(kube, client), steadyState=ASKS))
        await like.stop()
    assert (found.level, said in found.message) == ("warning" if said else "ok", True), found
