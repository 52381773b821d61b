"""Who reacted to a fault: from the log alone, with times, and what was ours left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gameday import events as ev
from gameday.report.analysis import analyse
from gameday.report.markdown import markdown
from gameday.report.model import Reaction
from tests.report.logs import started

pytestmark = pytest.mark.fast


def told(*events: tuple[float, ev.Event], kind: str = "gpu") -> list[Reaction]:
    """The reactions of a run with one fault of gpu-2, from second 10 to second 40."""
    return list(analyse(logged(*events, kind=kind)).reactions)


def logged(*events: tuple[float, ev.Event], kind: str = "gpu") -> list[ev.Event]:
    def fault(state: str) -> ev.Event:
        return ev.Fault(step="1", name="XID", kind=kind, state=state, targets=["Node gpu-2"])

    moments = [
        (10.0, fault("injecting")),
        (11.0, fault("in")),
        (39.0, fault("undoing")),
        (40.0, fault("out")),
    ]
    ordered = sorted([(0.0, started()), *moments, *events], key=lambda e: e[0])
    return [
        type(e)(**{**vars(e), "at": 1000.0 + at, "seq": seq}) for seq, (at, e) in enumerate(ordered, start=1)
    ]


def changed(
    condition: str, status: str, reason: str = "", thing: str = "Node gpu-2", node: str = ""
) -> ev.Event:
    return ev.ConditionChanged(object=thing, condition=condition, status=status, reason=reason, node=node)


def alert(name: str, **labels: str) -> ev.Event:
    return ev.Alert(alert=name, state="firing", labels=labels)


def short(reactions: list[Reaction]) -> list[tuple[str, str, float | None]]:
    return [(r.who, r.what, r.took) for r in reactions]


def test_everybody_who_can_react_is_told_with_the_time() -> None:
    pod = {"thing": "Pod training/trainer-1", "node": "gpu-2"}
    other = {"thing": "Pod inference/inference-1", "node": "gpu-2"}
    found = told(
        (1, changed("GPUd", "Healthy")),
        (1, changed("Slurm", "allocated")),
        (12, alert("GPUXidError", node="gpu-2", gpu="0")),
        (13, changed("XIDErrors", "True")),
        (14, changed("GPUd", "Unhealthy", "accelerator-nvidia-error-xid")),
        (15, changed("Taint nvidia.com/gpu.unhealthy", "True", "Xid79:NoSchedule")),
        (16, changed("Unschedulable", "True")),
        (17, changed("Terminating", "True", **pod)),
        (20, changed("Terminating", "True", **other)),
        (21, changed("Slurm", "draining", "XID")),
    )
    assert short(found) == [
        ("Alert", "GPUXidError", 2.0),
        ("Node condition", "XIDErrors is True", 3.0),
        ("GPUd", "accelerator-nvidia-error-xid Unhealthy", 4.0),
        ("Taint", "nvidia.com/gpu.unhealthy=Xid79:NoSchedule", 5.0),
        ("Cordon", "gpu-2", 6.0),
        ("Drain", "2 pods had to go, the last after 10 s", 7.0),
        ("Slurm", "draining (XID)", 11.0),
    ]
    assert {r.fault for r in found} == {"1 XID"}
    assert all(len(r.seqs) == 1 for r in found)


def test_nobody_is_told_too_but_only_where_somebody_watched() -> None:
    found = told((1, changed("GPUd", "Healthy")))
    assert short(found) == [
        (who, "", None) for who in ("Alert", "Node condition", "GPUd", "Taint", "Cordon", "Drain")
    ]


def test_that_nobody_noticed_broken_hardware_is_a_finding() -> None:
    def rules(*events: tuple[float, ev.Event], kind: str = "gpu") -> set[str]:
        return {f.rule for f in analyse(logged(*events, kind=kind)).findings}

    assert "nobody-reacted" in rules()
    assert "nobody-reacted" not in rules(kind="taint")
    assert "nobody-reacted" not in rules((12, changed("XIDErrors", "True")))


def test_what_happened_elsewhere_or_at_another_time_is_no_reaction() -> None:
    found = told(
        (5, changed("XIDErrors", "True")),
        (15, changed("XIDErrors", "True", thing="Node gpu-3")),
        (16, alert("GPUXidError", node="gpu-3")),
        (17, changed("Terminating", "True", thing="Pod training/trainer-1", node="gpu-3")),
        (45, changed("Unschedulable", "True")),
        (20, changed("Ready", "True")),
    )
    watched = ("Alert", "Node condition", "Taint", "Cordon", "Drain")
    assert short(found) == [(who, "", None) for who in watched]


@pytest.mark.parametrize(
    "said", [{"sets": ["spec.unschedulable"]}, {"summary": "spec.unschedulable: unset → True"}]
)
def test_what_the_run_did_itself_is_no_reaction(said: dict[str, Any]) -> None:
    """An older log has the summary alone."""
    change = ev.Change(
        entry=1,
        step="1",
        operation="patch",
        object="Node gpu-2",
        state="made",
        **said,
    )
    found = told((10.5, change), (11, changed("Unschedulable", "True")), kind="cordon")
    assert {r.who for r in found} == {"Alert", "Node condition", "Taint"}


def test_hardware_that_is_named_by_its_pod_is_on_a_node() -> None:
    def log(kind: str) -> list[ev.Event]:
        steps = [{"path": "1", "victims": [{"role": "pod", "node": "gpu-2"}]}]
        found = logged((1, ev.Planned(plan={"steps": steps})), (12, changed("RDMADown", "True")), kind=kind)
        return [replace(e, targets=["Pod training/x"]) if isinstance(e, ev.Fault) else e for e in found]

    assert ("Node condition", "RDMADown is True", 2.0) in short(list(analyse(log("vf")).reactions))
    assert analyse(log("podKill")).reactions == (), "a pod that was killed is no broken node"


def test_a_fault_without_nodes_has_no_such_table() -> None:
    log = [e for e in logged() if not isinstance(e, ev.Fault)]
    assert analyse(log).reactions == ()
    assert "Who reacted" not in markdown(analyse(log))


def test_the_table_is_in_the_text_report() -> None:
    text = markdown(analyse(logged((12, alert("GPUXidError", node="gpu-2")))))
    assert "## Who reacted" in text
    assert "| 1 XID | Alert | GPUXidError | 2 s |" in text
    assert "| 1 XID | Taint | did not react | — |" in text
