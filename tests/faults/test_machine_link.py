"""A Machine is a node's where Cluster API says so, not where the two have names in common."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.extend import PlanError
from gameday.faults.machine import _replaceable

pytestmark = pytest.mark.fast


def machine(name: str, provider: str = "", namespace: str = "fleet") -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "MachineSet", "name": "s", "uid": "u", "controller": True}
    meta = {"name": name, "namespace": namespace, "ownerReferences": [owner]}
    return {
        "apiVersion": "cluster.x-k8s.io/v1beta1",
        "kind": "Machine",
        "metadata": meta,
        "spec": {"providerID": provider} if provider else {},
        "status": {"nodeRef": {"name": "gpu-0"}},
    }


def node(provider: str = "", **annotations: str) -> dict[str, Any]:
    notes = {f"cluster.x-k8s.io/{k.replace('_', '-')}": v for k, v in annotations.items()}
    spec = {"providerID": provider} if provider else {}
    return {"metadata": {"name": "gpu-0", "annotations": notes}, "spec": spec}


@pytest.mark.parametrize(
    "here",
    [
        node("x://1"),
        node(machine="mine"),
        node(machine="mine", cluster_namespace="fleet"),
    ],
)
def test_of_machines_with_nodes_of_one_name_the_nodes_own_is_taken(here: dict[str, Any]) -> None:
    """A management cluster holds those of other clusters, too."""
    found = _replaceable(here, [machine("other", "x://2"), machine("mine", "x://1")])
    assert found["metadata"]["name"] == "mine"


@pytest.mark.parametrize(
    ("here", "machines", "words"),
    [
        (node("x://1"), [machine("other", "x://2")], "its providerID is x://2, that of the node is x://1"),
        (node(machine="mine"), [machine("other")], "the node says cluster.x-k8s.io/machine: mine"),
        (node(), [machine("a"), machine("b")], "nothing tells it apart"),
        (node(), [], "no Machine says that node gpu-0 is its own"),
    ],
)
def test_a_machine_of_another_cluster_is_refused(
    here: dict[str, Any], machines: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(PlanError) as refused:
        _replaceable(here, machines)
    assert words in str(refused.value)
