"""Synthetic logs: a game day as a real one would be written, so that reports can be tested and looked at."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gameday import events as ev

START = 1_795_000_000.0  # 2026-11-18

EXPERIMENT: dict[str, Any] = {
    "apiVersion": "gameday.dev/v1alpha1",
    "kind": "Experiment",
    "metadata": {"name": "drain-two-gpu-nodes", "labels": {"team": "gpu-platform"}},
    "spec": {
        "title": "Inference keeps its latency while two GPU nodes are drained",
        "owner": "gpu-platform@example.com",
        "runbook": "runbooks/gpu-node-loss.md",
        "target": {"context": "staging-.*", "namespaces": ["inference", "training"]},
        "blastRadius": {"nodes": 2, "pods": "10%", "gpus": 16},
        "variables": {"latency": "500ms", "api_token": "hunter2hunter2"},
        "steadyState": [
            {
                "name": "p99 latency",
                "prometheus": "histogram_quantile(0.99, sum by (le) "
                "(rate(inference_request_duration_seconds_bucket[1m])))",
                "is": "< 500ms",
                "during": "< 2s",
            },
            {
                "name": "training throughput",
                "prometheus": "sum(rate(training_samples_total[1m]))",
                "is": ">= 90% of baseline",
                "during": "ignore",
            },
            {
                "name": "error ratio",
                "prometheus": 'sum(rate(inference_requests_total{code=~"5.."}[1m]))'
                " / sum(rate(inference_requests_total[1m]))",
                "is": "< 1%",
            },
            {"name": "app", "argocd": {"application": "inference"}, "is": "Healthy"},
        ],
        "abortIf": [{"prometheus": 'sum(up{job="inference"})', "is": "< 2", "for": "10s"}],
        "expectAlerts": [
            {"alert": "GPUNodeUnschedulable", "within": "2m"},
            {"alert": "TrainingStalled", "within": "2m"},
        ],
        "observe": ["DCGM_FI_DEV_GPU_UTIL", "sum by (node) (kube_pod_status_ready)"],
        "method": [{"drain": {"nodes": {"pick": 2}}, "for": "5m"}],
        "recovery": {"within": "3m"},
    },
}  # fmt: skip


class Writer:
    """Numbers events and sets their time, as the log does."""

    def __init__(self, start: float = START) -> None:
        self.events: list[ev.Event] = []
        self.start = start

    def __call__(self, offset: float, event: ev.Event) -> None:
        self.events.append(replace(event, at=self.start + offset))

    def sorted(self) -> list[ev.Event]:
        ordered = sorted(self.events, key=lambda e: e.at)
        return [replace(e, seq=i) for i, e in enumerate(ordered, 1)]


def write(path: Path, events: Iterable[ev.Event]) -> Path:
    """A run's folder with its log."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "events.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(ev.encode(e) + "\n" for e in events)
    return path


def started(experiment: dict[str, Any] = EXPERIMENT, **more: Any) -> ev.RunStarted:
    values: dict[str, Any] = {
        "run": "2026-11-18-drain-two-gpu-nodes-7f3a",
        "name": experiment["metadata"]["name"],
        "title": experiment["spec"]["title"],
        "experiment": experiment,
        "gameday": "0.1.0",
        "by": "mara",
        "seed": 41,
        "variables": experiment["spec"].get("variables", {}),
        "platform": {
            "context": "staging-eu-1",
            "server": "https://10.0.0.1:6443",
            "prometheus": "http://prometheus.monitoring:9090",
        },
        "file": "experiments/drain-two-gpu-nodes.yaml",
    }
    return ev.RunStarted(**{**values, **more})


def _latency(t: float) -> float:
    base = 0.31 + 0.03 * math.sin(t / 17)
    if 70 <= t < 420:
        base += 0.9 * math.exp(-(((t - 120) / 60) ** 2)) + 0.12
    if 520 <= t < 700:
        base += 0.11
    return base


def _throughput(t: float) -> float:
    base = 4100 + 60 * math.sin(t / 31)
    if 66 <= t < 150:
        base *= 0.35
    elif 150 <= t < 450:
        base *= 0.82
    return base


def _errors(t: float) -> float:
    return 0.0021 + (0.0145 * math.exp(-(((t - 96) / 18) ** 2)) if t > 60 else 0)


def _levels(query: int, node: int, t: float) -> float:
    """What the observed queries show for a node: drained nodes go to nothing while they are out."""
    down = node in (3, 7) and 80 <= t < 440
    if query == 4:
        return 2 if down else 88 + 5 * math.sin(t / 40 + node)
    return 0 if down else 8


def _samples(w: Writer, rng: random.Random, end: float, step: float = 5) -> None:
    spec = EXPERIMENT["spec"]

    def times(at: int) -> range:
        return range(at, min(at + 30, int(end)), int(step))

    curves = ((_latency, 0.02), (_throughput, 40), (_errors, 0.0004))
    for i, (probe, (curve, jitter)) in enumerate(zip(spec["steadyState"][:3], curves, strict=True), 1):
        declared: dict[str, Any] = {
            "expression": probe["prometheus"],
            "name": probe["name"],
            "purpose": "steady-state",
        }
        w(1, ev.QueryDeclared(query=i, step=step, **declared))
        for at in range(5, int(end), 30):
            if i == 1 and 560 <= at < 620:
                continue  # Prometheus is away
            points = [[START + t, round(curve(t) + rng.gauss(0, jitter), 5)] for t in times(at)]
            w(min(at + 30, end), ev.Samples(query=i, series=[{"labels": {}, "points": points}]))
    reason = "Prometheus refused the connection"
    w(625, ev.Gap(query=1, start=START + 575, end=START + 632, reason=reason))
    for i, expression in enumerate(spec["observe"], 4):
        w(1, ev.QueryDeclared(query=i, expression=expression, purpose="observe", step=step))
        for at in range(5, int(end), 30):
            series = []
            for n in range(12):
                noise = 2.0 if i == 4 else 0.0
                points = [
                    [START + t, round(max(0.0, _levels(i, n, t) + rng.gauss(0, noise)), 3)] for t in times(at)
                ]
                series.append({"labels": {"node": f"gpu-{n}"}, "points": points})
            w(min(at + 30, end), ev.Samples(query=i, series=series))


def _probed(w: Writer, offset: float, probe: str, state: str, value: float | str, **more: Any) -> None:
    known: dict[str, dict[str, Any]] = {
        "p99 latency": {"high": 0.5, "expected": "< 500ms"},
        "training throughput": {"low": 3690.0, "baseline": 4100.0, "expected": ">= 90% of baseline"},
        "error ratio": {"high": 0.01, "expected": "< 1%"},
        "app": {"expected": "Healthy"},
    }
    facts = known[probe]
    if more.get("during") and probe == "p99 latency":
        facts = {"high": 2.0, "expected": "< 2s"}
    if isinstance(value, float):
        high, low = facts.get("high"), facts.get("low")
        margin = (high - value) / high if high else (value - low) / low if low else None
        facts = {**facts, "margin": margin}
    w(offset, ev.Probed(probe=probe, state=state, value=value, **{**facts, **more}))


def game_day(seed: int = 7) -> list[ev.Event]:
    """A drain of two nodes and a network delay: one alert missing, one bound broken, a close call, a gap."""
    w, rng = Writer(), random.Random(seed)
    w(0, started())
    for at, phase in (
        (0.1, "preflight"),
        (5, "baseline"),
        (62, "method"),
        (705, "recovery"),
        (800, "audit"),
        (806, "done"),
    ):
        w(at, ev.Phase(phase=phase))
    w(
        1,
        ev.Planned(
            plan={
                "cluster": {"version": "v1.36.1"},
                "steps": [{"step": "1", "kind": "drain", "targets": ["Node gpu-3", "Node gpu-7"]}],
            }
        ),
    )
    w(3, ev.Preflight(check="rbac", level="ok", message="all 14 verbs allowed"))
    w(
        3.5,
        ev.Preflight(
            check="capacity",
            level="warning",
            message="after the drain 2 GPUs are free",
            hint="a third node loss would evict training",
        ),
    )
    _samples(w, rng, 800)
    _story(w)
    _cluster(w)
    return w.sorted()


def _story(w: Writer) -> None:
    for at in (8.0, 38.0, 60.0):
        _probed(w, at, "p99 latency", "holds", 0.322)
        _probed(w, at, "training throughput", "holds", 4120.0)
        _probed(w, at, "error ratio", "holds", 0.0022)
        _probed(w, at, "app", "holds", "Healthy")
    drain: dict[str, Any] = {"step": "1", "name": "drain two GPU nodes", "kind": "drain"}
    nodes = ["Node gpu-3", "Node gpu-7"]
    w(63, ev.StepStarted(**drain))
    w(64, ev.Fault(**drain, state="injecting", targets=nodes))
    for i, node in enumerate(nodes):
        for state, at in (("intended", 64.0), ("made", 64.4), ("undone", 421.0 + i)):
            w(
                at,
                ev.Change(
                    entry=i + 1,
                    step="1",
                    operation="patch",
                    object=node,
                    state=state,
                    summary="spec.unschedulable: true",
                ),
            )
    for i in range(6):
        for state, at in (("intended", 65.0), ("made", 70.0 + i), ("irreversible", 70.1 + i)):
            w(
                at,
                ev.Change(
                    entry=10 + i,
                    step="1",
                    operation="evict",
                    object=f"Pod inference/inference-6d4cf-{i:02d}",
                    state=state,
                    summary="evicted",
                ),
            )
    w(
        72,
        ev.Progress(
            step="1",
            message="The disruption budget inference needs 9 healthy pods holds inference/inference-6d4cf-04",
            done=4,
            total=6,
        ),
    )
    w(
        81,
        ev.Fault(
            **drain,
            state="in",
            targets=nodes,
            evidence=["gpu-3 holds no evictable pod", "gpu-7 holds no evictable pod"],
        ),
    )
    w(
        87,
        ev.Alert(
            alert="GPUNodeUnschedulable", state="pending", labels={"node": "gpu-3", "severity": "warning"}
        ),
    )
    w(
        88.5,
        ev.Alert(
            alert="GPUNodeUnschedulable", state="firing", labels={"node": "gpu-3", "severity": "warning"}
        ),
    )
    w(110, ev.Alert(alert="InferenceLatencyHigh", state="firing", labels={"severity": "page"}))
    w(240, ev.Alert(alert="InferenceLatencyHigh", state="resolved", labels={"severity": "page"}))
    _probed(w, 66, "p99 latency", "holds", 0.45, during=True)
    _probed(w, 70, "training throughput", "broken", 1435.0, during=True, ignored=True)
    _probed(
        w,
        90,
        "error ratio",
        "broken",
        0.0161,
        during=True,
        series='{code="503"}',
        message="1.61% is not < 1%",
    )
    _probed(w, 120, "error ratio", "holds", 0.0058, during=True)
    _probed(w, 122, "p99 latency", "holds", 1.87, during=True)
    _probed(w, 75, "app", "broken", "Degraded", during=True)
    _probed(w, 130, "app", "holds", "Healthy", during=True)
    w(200, ev.Note(author="mara", text="Dashboards show the queue draining; the on-call was paged at 14:06."))
    w(420, ev.Fault(**drain, state="undoing"))
    w(424, ev.Fault(**drain, state="out", evidence=["gpu-3 is schedulable", "gpu-7 is schedulable"]))
    w(425, ev.StepFinished(**drain, outcome="done"))
    w(
        430,
        ev.Alert(
            alert="GPUNodeUnschedulable", state="resolved", labels={"node": "gpu-3", "severity": "warning"}
        ),
    )
    _probed(w, 426, "training throughput", "broken", 3362.0)
    _probed(w, 427, "p99 latency", "holds", 0.33)
    _probed(w, 427.2, "error ratio", "holds", 0.0021)
    _probed(w, 427.3, "app", "holds", "Healthy")
    _probed(w, 462, "training throughput", "holds", 4080.0)
    delay: dict[str, Any] = {"step": "2", "name": "delay inference by 100 ms", "kind": "chaosMesh"}
    w(515, ev.StepStarted(**delay))
    w(516, ev.Fault(**delay, state="injecting", targets=["Pod inference/inference-6d4cf-00"]))
    for state, at in (("intended", 516.0), ("made", 516.3), ("undone", 697.0)):
        w(
            at,
            ev.Change(
                entry=30,
                step="2",
                operation="create",
                object="NetworkChaos inference/gd-7f3a-2",
                state=state,
                summary="created NetworkChaos",
            ),
        )
    w(519, ev.Fault(**delay, state="in", evidence=["AllInjected is True", "12 of 12 pods injected"]))
    _probed(w, 525, "p99 latency", "holds", 0.447, during=True)
    w(696, ev.Fault(**delay, state="undoing"))
    w(699, ev.Fault(**delay, state="out", evidence=["NetworkChaos is gone"]))
    w(700, ev.StepFinished(**delay, outcome="done"))
    for at in (706.0, 736.0, 790.0):
        _probed(w, at, "p99 latency", "holds", 0.318)
        _probed(w, at, "training throughput", "holds", 4133.0)
        _probed(w, at, "error ratio", "holds", 0.0021)
        _probed(w, at, "app", "holds", "Healthy")
    for node in nodes:
        w(801, ev.Audited(object=node, state="restored"))
    w(802, ev.Audited(object="NetworkChaos inference/gd-7f3a-2", state="restored"))
    w(803, ev.Warn(source="slack", message="not_in_channel: invite the bot to #gpu-gamedays"))
    w(
        806.5,
        ev.Verdict(
            verdict="deviated",
            reason="error ratio: 1.61% is not < 1% while two GPU nodes were drained (and 2 more)",
            exit_code=1,
        ),
    )


def _cluster(w: Writer) -> None:
    for n in (3, 7):
        w(
            64.5,
            ev.ConditionChanged(
                object=f"Node gpu-{n}", condition="Unschedulable", status="True", reason="NodeUnschedulable"
            ),
        )
        w(422, ev.ConditionChanged(object=f"Node gpu-{n}", condition="Unschedulable", status="False"))
        w(
            65,
            ev.ObjectEvent(
                object=f"Node gpu-{n}",
                reason="NodeNotSchedulable",
                message="Node status is now: NodeNotSchedulable",
            ),
        )
    for i in range(6):
        pod = f"Pod inference/inference-6d4cf-{i:02d}"
        w(70 + i, ev.ObjectEvent(object=pod, reason="Killing", message="Stopping container server"))
        for k in range(3):
            w(
                73 + i + 8 * k,
                ev.ObjectEvent(
                    object=f"Pod inference/inference-6d4cf-{i + 20:02d}",
                    reason="FailedScheduling",
                    message="0/10 nodes are available: 8 Insufficient nvidia.com/gpu",
                    level="Warning",
                ),
            )


def big(queries: int = 200, hours: float = 8, step: float = 5, batch: float = 15) -> Iterator[ev.Event]:
    """A long run: `queries` series sampled each `step` seconds, written `batch` seconds at a time."""
    rng = random.Random(1)
    end = hours * 3600
    yield replace(started(), at=START, seq=1)
    seq = 1
    fault: dict[str, Any] = {"step": "1", "name": "drain two GPU nodes", "kind": "drain"}
    plan: list[tuple[float, ev.Event]] = [(1, ev.Phase(phase="method"))]
    plan += [
        (
            2,
            ev.QueryDeclared(
                query=q, expression=f'DCGM_FI_DEV_GPU_UTIL{{node="gpu-{q}"}}', purpose="observe", step=step
            ),
        )
        for q in range(queries)
    ]
    plan += [
        (end / 3, ev.Fault(**fault, state="injecting")),
        (end / 3 + 20, ev.Fault(**fault, state="in")),
        (end / 2, ev.Fault(**fault, state="out")),
    ]
    plan += [(end, ev.Verdict(verdict="passed", reason="the steady state held", exit_code=0))]
    for at, event in plan[:-1]:
        seq += 1
        yield replace(event, at=START + at, seq=seq)
    at = 0.0
    while at < end:
        for q in range(queries):
            seq += 1
            points = [
                [START + at + k * step, round(80 + 10 * math.sin((at + k) / 900 + q) + rng.random(), 4)]
                for k in range(int(batch / step))
            ]
            labels = {"node": f"gpu-{q}", "gpu": "0", "job": "dcgm", "instance": f"10.0.0.{q}:9400"}
            yield ev.Samples(
                query=q, series=[{"labels": labels, "points": points}], at=START + at + batch, seq=seq
            )
        at += batch
    yield replace(plan[-1][1], at=START + end, seq=seq + 1)
