"""The janitor in its own pod: `deploy/janitor.yaml` as it is, with the image that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_janitor import MANIFEST, Kubectl, kubectl
from tests.real_node import janitor_image
from tests.real_node.conftest import BYSTANDER, SPACE
from tests.real_node.experiments import write
from tests.support.node import RealNode
from tests.support.polling import until
from tests.support.program import Program

__all__ = ["kubectl"]
CORDON = {"cordon": {"nodes": {"names": ["node-1"]}}, "for": "300s"}


@pytest.fixture
def deployed(kubectl: Kubectl, node: RealNode) -> Iterator[Kubectl]:
    """The manifest in force; one of its pods runs on the node, which pulls nothing."""
    archive = Path(node.directory) / "janitor.tar"
    janitor_image.write(archive)
    node.run("ctr", "--namespace=k8s.io", "images", "import", str(archive))
    archive.unlink()
    kubectl("cordon", BYSTANDER)  # an object without a machine: a pod there would never begin
    kubectl("apply", "--filename", MANIFEST)
    try:
        until(lambda: _status(kubectl).get("readyReplicas", 0) >= 1, "the janitor is ready", within=90)
        yield kubectl
    finally:
        documents = [MANIFEST, "--ignore-not-found", "--wait=true"]
        kubectl("delete", "--filename", *documents)
        until(lambda: not _pods(kubectl), "its pods are gone", within=60)


def _status(kubectl: Kubectl) -> dict[str, Any]:
    return _read(kubectl, "deployment/gameday-janitor").get("status") or {}


def _pods(kubectl: Kubectl) -> list[Any]:
    found: list[Any] = _read(kubectl, "pods", "--selector", "app.kubernetes.io/name=gameday-janitor")["items"]
    return found


def _read(kubectl: Kubectl, *what: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(kubectl("--namespace", SPACE, "get", *what, "--output", "json"))
    return answer


def test_a_killed_run_is_restored_by_the_pods_of_the_manifest(
    deployed: Kubectl, node: RealNode, gameday: Program, tmp_path: Path
) -> None:
    with gameday.started(write(tmp_path, node, CORDON, allow=[f"Node/{node.name}"])) as run:
        run.fault_is("in")
        name = run.kill()

    def restored() -> bool:
        chosen = f"involvedObject.name=gameday-{name},reason=Restored"
        return bool(_read(deployed, "events", "--field-selector", chosen)["items"])

    until(restored, "the janitor said that it restored the run", within=120)
    node_now = _read(deployed, f"node/{node.name}")
    assert "unschedulable" not in node_now["spec"]
    assert all(
        p["status"]["containerStatuses"][0]["restartCount"] == 0
        for p in _pods(deployed)
        if p["spec"].get("nodeName") == node.name
    )
