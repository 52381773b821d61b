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
                "namespaces": ["platform", "training", "inference"],
                "nodes": {"selector": "nvidia.com/gpu.present=true"},
            },
            "blastRadius": {"nodes": 2, "pods": 4, "gpus": 32},
            "steadyState": [REPLICAS],
            "method": method,
            "recovery": {"within": "60s"},
            **spec,
        },
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
