"""Small experiments for tests, written as a user writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPLICAS = {
    "name": "queue controller",
    "kubernetes": {
        "resource": "deployment/job-queue-controller",
        "namespace": "platform",
        "jsonPath": "{.status.readyReplicas}",
    },
    "is": ">= 2",
    "during": "ignore",
    "interval": "500ms",
}
SCALE = {
    "scale": {"workload": "deployment/job-queue-controller", "namespace": "platform", "replicas": 0},
    "for": "30s",
}
CORDON = {"cordon": {"nodes": {"names": ["gpu-0", "gpu-1"]}}, "for": "30s"}

# Whose pods may be on any node that a test drains: on a real scheduler earlier tests moved them about.
EVERYWHERE = ["platform", "training", "inference", "gateway", "slurm"]


def write(folder: Path, *, method: list[dict[str, Any]], **spec: Any) -> Path:
    """An experiment file with this method; `spec` overrides the rest."""
    document = {
        "apiVersion": "gameday.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "test"},
        "spec": {
            "title": "A test",
            "target": {
                "context": "gameday-.*",
                "namespaces": EVERYWHERE,
                "nodes": {"selector": "nvidia.com/gpu.present=true"},
            },
            "blastRadius": {
                "nodes": 2,
                "pods": 16,  # what fits on two nodes of eight GPUs, wherever earlier tests moved pods to
                "gpus": 32,
                "services": ["inference/inference"],
                "namespaces": ["inference"],
            },
            "steadyState": [REPLICAS],
            "method": method,
            "recovery": {"within": "60s"},
            **spec,
        },
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
