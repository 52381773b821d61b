"""What must be there before some faults can be tried: a node that an admin drained, an update under way."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.torture.world import World

DRAINED = "gpu-2"  # of Slurm's nodes; no other fault drains or cordons it
ROLLOUTS = "/apis/argoproj.io/v1alpha1/namespaces/gateway/rollouts"
UPDATE = "update-under-way"
MERGE = "application/merge-patch+json"
WITHIN = 60.0  # seconds


@contextmanager
def arranged(world: World) -> Iterator[None]:
    """Both, while the block lasts."""
    if world.slurm_url:
        _slurm(world, {"state": ["DRAIN"], "reason": "bad HCA"})
    world.ask("POST", ROLLOUTS, _rollout("1"))
    try:
        _until(world, "Healthy")
        world.ask("PATCH", f"{ROLLOUTS}/{UPDATE}", {"spec": _rollout("2")["spec"]}, MERGE)
        _until(world, "Paused")
        yield
    finally:
        world.ask("DELETE", f"{ROLLOUTS}/{UPDATE}")
        if world.slurm_url:
            _slurm(world, {"state": ["RESUME"]})


def _slurm(world: World, body: Any) -> None:
    headers = {"X-SLURM-USER-TOKEN": world.slurm_token, "X-SLURM-USER-NAME": "root"}
    headers["Content-Type"] = "application/json"
    url = f"{world.slurm_url}/slurm/v0.0.44/node/{DRAINED}"
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(asked, timeout=20) as answer:
        answer.read()


def _rollout(version: str) -> Any:
    labels = {"app": UPDATE}
    container = {"name": "app", "image": f"example.com/app:{version}"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    canary = {"steps": [{"setWeight": 50}, {"pause": {}}]}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": UPDATE, "namespace": "gateway"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "strategy": {"canary": canary},
            "template": template,
        },
    }


def _until(world: World, phase: str) -> None:
    deadline = time.monotonic() + WITHIN
    while (world.get(f"{ROLLOUTS}/{UPDATE}").get("status") or {}).get("phase") != phase:
        if time.monotonic() > deadline:
            raise AssertionError(f"Rollout {UPDATE} does not become {phase}")
        time.sleep(0.2)
