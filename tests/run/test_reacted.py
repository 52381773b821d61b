"""Which pods count as ended by what reacted to a fault: those of nodes that others took away for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gameday.events import Change, Fault
from gameday.platform.objects import Object
from gameday.run.reacted import Reacted

pytestmark = pytest.mark.fast
INJECTING = Fault(step="1", name="xid", kind="gpu", state="injecting")
CORDONED = Change(
    step="1",
    entry=1,
    operation="patch",
    object="Node gpu-0",
    state="made",
    sets=["spec.unschedulable"],
)
OTHER = replace(CORDONED, sets=["metadata.annotations"], summary="metadata.annotations[spec.taints]: a → b")


def _node(name: str = "gpu-0", **spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}, "spec": spec}


def _pod(name: str, node: str = "gpu-0", *, goes: bool = True, phase: str = "Running") -> Object:
    meta = {"name": name, "namespace": "web", "uid": name} | ({"deletionTimestamp": "now"} if goes else {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node}} | {
        "status": {"phase": phase}
    }


OUT: list[dict[str, Any]] = [
    {"unschedulable": True},
    {"taints": [{"key": "nvidia.com/gpu.unhealthy", "effect": "NoExecute"}]},
]


@pytest.mark.parametrize("out", OUT, ids=["cordon", "taint"])
def test_a_drain_by_others_after_the_fault(out: dict[str, Any]) -> None:
    heard = Reacted({"1": frozenset({"gpu-0"})})
    heard.hear(_node())
    heard.hear(_pod("before"))
    heard.hear_event(INJECTING)
    for pod in (_pod("a"), _pod("a"), _pod("b"), _pod("before"), _pod("stays", goes=False)):
        heard.hear(pod)  # in whatever order two watches bring them
    heard.hear(_pod("elsewhere", "gpu-1"))
    heard.hear(_pod("done", phase="Succeeded"))
    heard.hear(_node(**out))
    assert heard.pods(but=()) == 2
    assert heard.pods(but={"Pod web/b"}) == 1


@pytest.mark.parametrize(("change", "pods"), [(CORDONED, 0), (OTHER, 1)], ids=["a cordon", "words of one"])
def test_what_the_run_did_itself_is_no_reaction(change: Change, pods: int) -> None:
    heard = Reacted({"1": frozenset({"gpu-0"})})
    heard.hear(_node())
    heard.hear_event(INJECTING)
    heard.hear_event(change)
    heard.hear(_node(unschedulable=True))
    heard.hear(_pod("a"))
    assert heard.pods(but=()) == pods


def test_a_node_that_was_out_of_service_before_tells_nothing() -> None:
    heard = Reacted({"1": frozenset({"gpu-0"})})
    heard.hear(_node(unschedulable=True))
    heard.hear_event(INJECTING)
    heard.hear(_node(unschedulable=True))
    heard.hear(_pod("a"))
    assert heard.pods(but=()) == 0
