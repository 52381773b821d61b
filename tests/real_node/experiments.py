"""Experiments for the real node, written as a user writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e import experiments
from tests.support.node import RealNode

READY = {
    "name": "the node is there",
    "kubernetes": {
        "resource": "nodes/node-1",
        "jsonPath": "{.status.conditions[?(@.type=='Ready')].status}",
    },
    "is": "True",
    "during": "ignore",
    "interval": "500ms",
}


def write(
    folder: Path,
    node: RealNode,
    *method: dict[str, Any],
    spaces: Sequence[str] = ("default",),
    allow: Sequence[str] = (),
    **spec: Any,
) -> Path:
    """An experiment file with this method; node programs use the node's only image."""
    target = {
        "context": "gameday-.*",
        "namespaces": list(spaces),
        "allowProtected": sorted({*allow, *(f"Namespace/{space}" for space in spaces if space != "default")}),
        "nodes": {"selector": f"kubernetes.io/hostname={node.name}"},
        "nodeProgram": {"image": node.image, "pullPolicy": "Never"},
    }
    whole = {"target": target, "blastRadius": {"nodes": 1, "gpus": 8}, "steadyState": [READY], **spec}
    return experiments.write(folder, method=list(method), **whole)
