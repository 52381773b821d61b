"""A name that holds a path: nothing outside the target is touched, whoever is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.platform.errors import BadName, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

OUT = "../../inference/deployments/inference"
ONLY_DEFAULT = {"context": "gameday-.*", "namespaces": ["default"]}


@pytest.mark.parametrize(
    "fault",
    [
        {"scale": {"workload": f"deployment/{OUT}", "namespace": "default", "replicas": 0}},
        {
            "argocd": {
                "drift": {
                    "resource": f"deployment/{OUT}",
                    "namespace": "default",
                    "path": "spec.replicas",
                    "value": 0,
                }
            }
        },
        {"rollout": {"name": "../../inference/rollouts/gateway", "namespace": "default", "action": "pause"}},
        {
            "quota": {
                "name": "../../inference/resourcequotas/compute",
                "namespace": "default",
                "hard": {"pods": "0"},
            }
        },
        {"istio": {"virtualService": "..", "namespace": "default", "abort": {"httpStatus": 503}}},
    ],
    ids=lambda fault: str(next(iter(fault))),
)
def test_a_name_with_a_slash_stays_in_the_target(
    fault: dict[str, Any], gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{**fault, "for": "1s"}], target=ONLY_DEFAULT, blastRadius={"pods": 1000})
    ended = gameday.run(file)
    assert ended.code == 2, ended.output
    assert "experiment.yaml:" in ended.output
    assert "name" in ended.output
    assert ended.folder is None  # nothing was begun


async def test_an_api_server_takes_a_quoted_slash_for_a_slash(kube: Kube) -> None:
    """Which is why such a name is refused, and not quoted."""
    there = Ref("apps/v1", "Deployment", "inference", "inference")
    await kube.get(there)
    quoted = OUT.replace("..", "%2E%2E").replace("/", "%2F")
    with pytest.raises(BadName):
        await kube.get(Ref("apps/v1", "Deployment", OUT, "default"))
    outside = "inference%2Fdeployments%2Finference"
    answered = await kube.ask("GET", f"/apis/apps/v1/namespaces/{outside}")
    assert Ref.of(answered) == Ref(
        **{
            **{f: getattr(there, f) for f in ("api_version", "kind", "name", "namespace")},
            "uid": answered["metadata"]["uid"],
        }
    )
    with pytest.raises(WrongAnswer, match="HTTP 404, which is not about that object"):
        await kube.ask("GET", f"/apis/apps/v1/namespaces/default/deployments/{quoted}")
