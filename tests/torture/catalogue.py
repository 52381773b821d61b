"""One short experiment for every fault that is installed, so that none can be forgotten.

The experiments are in catalogue.yaml. The faults are those of the entry points, the modes of a family those
of its own schema: a new one without a case and without a reason fails the whole run.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

HOLD = "0.3s"
LABELS = "nvidia.com/gpu.present=true"
ANYWHERE = ["inference", "training", "platform", "gateway", "slurm", "argocd", "gpu-operator", "chaos-mesh"]
# Keys whose options are several faults, and which of the options those are.
FAMILIES = {
    "gpu": ("deviceLoss", "xid", "throttle", "mig", "deviceTaint"),
    "slurm": ("drain", "down", "resume", "requeue", "holdPartition"),
    "argocd": ("rollback", "drift"),
    "rollout": ("abort", "undo", "pause", "promote"),
}


@dataclass(frozen=True)
class Case:
    """A fault with all that makes it short. `slow`: only where there is an hour; the text says why."""

    name: str
    step: dict[str, Any]
    target: dict[str, Any] = field(default_factory=dict)
    slow: str = ""
    file: str = ""  # made by the fault, and gone when it is undone

    def write(self, folder: Path, hold: str = HOLD, **spec: Any) -> Path:
        """The experiment as a file in a folder."""
        return write(folder, [_held(self.step, hold)], target=self.target, **spec)


# Why a mode of a family has no case of its own.
REASONS = {
    "rollout: promote": "is not undone, and needs an update that waits: tests/e2e/test_rollout.py",
    "gpu: deviceTaint": "needs devices that a driver published: tests/e2e/test_gpu_device_taint.py",
}


def cases(scratch: Path) -> list[Case]:
    """Every case, in the order of the catalogue. `scratch`: for what an activity writes."""
    text = Path(__file__).with_name("catalogue.yaml").read_text()
    found = yaml.safe_load(text.replace("MARK", str(scratch / "activity-was-here")))
    return [Case(name=name, **said) for name, said in found.items()]


def together(chosen: list[Case], folder: Path, hold: str, **spec: Any) -> Path:
    """Several faults at the same time."""
    target: dict[str, Any] = {}
    for case in chosen:
        target |= case.target
    return write(folder, [{"parallel": [_held(case.step, hold) for case in chosen]}], target=target, **spec)


def _held(step: dict[str, Any], hold: str) -> dict[str, Any]:
    """A step that holds so long; one of several steps says by itself how long each of them does."""
    return step if "parallel" in step else {**step, "for": hold}


RADIUS = {
    "nodes": 8,
    "pods": "100%",
    "gpus": "100%",
    "services": ["inference/inference"],
    "namespaces": ["inference"],
    "partitions": ["gpu"],
    "others": ["leave a mark"],
}
QUEUE = {
    "name": "queue controller",
    "kubernetes": {
        "resource": "deployment/job-queue-controller",
        "namespace": "platform",
        "jsonPath": "{.spec.replicas}",
    },
    "is": ">= 2",
    "during": "ignore",
    "interval": "500ms",
}


def write(
    folder: Path, method: list[dict[str, Any]], *, target: dict[str, Any] | None = None, **spec: Any
) -> Path:
    """An experiment file with this method and the least of everything else."""
    whole = {
        "context": "gameday-.*",
        "namespaces": ANYWHERE,
        "nodes": {"selector": LABELS},
        "allowProtected": ["Namespace/gpu-operator", "Namespace/chaos-mesh"],  # whose pods go with a node
        **(target or {}),
    }
    document = {
        "apiVersion": "gameday.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "torture"},
        "spec": {
            "title": "Torture",
            "target": whole,
            "blastRadius": RADIUS,
            "steadyState": [QUEUE],
            "abortIf": "none",
            "method": method,
            "recovery": {"within": "60s"},
            **spec,
        },
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def forgotten(known: list[Case]) -> list[str]:
    """Faults of the catalogue, and modes of its families, that have neither a case nor a reason."""
    named = {case.name for case in known} | REASONS.keys()
    listed = sorted({entry.name for entry in entry_points(group="gameday.faults")})
    missing = []
    for key in listed:
        wanted = [f"{key}: {mode}" for mode in FAMILIES[key]] if key in FAMILIES else [key]
        missing += [w for w in wanted if w not in named]
        missing += [f"{key}: {mode}" for mode in _modes(key) - set(FAMILIES.get(key, ())) if mode]
    return missing


# Options that belong to a whole family, and are no faults by themselves.
SHARED = {
    "gpu": {"nodes", "settleWithin"},
    "slurm": {"reason", "waitForJobs", "settleWithin", "nodes"},
    "argocd": {"settleWithin"},
}


def _modes(key: str) -> set[str]:
    """The modes of a family as the program's own schema has them; empty for other faults."""
    if key not in SHARED:
        return set()
    found = _find(_schema(), key)
    return set(found) - SHARED[key]


def _schema() -> Any:
    asked = [sys.executable, "-m", "gameday", "schema"]
    return json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)


def _find(schema: Any, key: str) -> set[str]:
    """The options of a fault's key, wherever the schema keeps them."""
    definitions = schema.get("$defs", {})

    def options(node: Any) -> set[str]:
        if "$ref" in node:
            return options(definitions[node["$ref"].rpartition("/")[2]])
        several = [branch for word in ("anyOf", "oneOf", "allOf") for branch in node.get(word, ())]
        return set(node.get("properties", {})).union(*map(options, several))

    for definition in definitions.values():
        if key in definition.get("properties", {}) and "parallel" in definition["properties"]:
            return options(definition["properties"][key])
    return set()


def spread(known: list[Case], seed: int) -> list[Case]:
    """All cases in an order of the seed's."""
    order = list(known)
    random.Random(seed).shuffle(order)
    return order
