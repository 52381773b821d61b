"""An experiment that touches no cluster needs no kubeconfig; killed, it is restored from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.experiments import CORDON, write
from tests.e2e.test_chaostoolkit import native, said, shell
from tests.support.program import Program

pytestmark = pytest.mark.sandbox_only("about runs without a cluster")


def nowhere(folder: Path) -> dict[str, str]:
    return {"KUBECONFIG": "", "HOME": str(folder), "GAMEDAY_PROMETHEUS_URL": "", "GAMEDAY_SLURM_URL": ""}


def test_a_native_experiment_runs_without_a_kubeconfig(gameday: Program, tmp_path: Path) -> None:
    script = f"echo cluster:$KUBECONFIG: >> {tmp_path}/log"
    ended = gameday.run(native(tmp_path, shell("look", script)), env=nowhere(tmp_path))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert said(tmp_path) == ["action", "cluster::", "rollback"]


def test_killed_it_is_restored_from_its_folder(gameday: Program, tmp_path: Path) -> None:
    env = nowhere(tmp_path)
    with gameday.started(native(tmp_path, shell("hang", "sleep 600")), env=env) as run:
        run.until(lambda e: e["type"] == "fault" and e["name"] == "hang", "the hanging action runs")
        name = run.kill()
    ended = gameday("recover", "--from", gameday.reports / name, env=env)
    assert ended.code == 0, ended.output
    assert said(tmp_path) == ["action", "rollback"]


@pytest.mark.parametrize(
    "probe", [{"alert": "InferenceDown", "is": "inactive"}, {"prometheus": "up"}], ids=["alert", "query"]
)
def test_what_asks_prometheus_alone_needs_none(
    probe: dict[str, Any], gameday: Program, tmp_path: Path
) -> None:
    action = {"type": "action", "name": "wait", "provider": {"type": "process", "path": "true"}}
    calm = {"is": ">= 0", **probe, "name": "calm"}
    spec: dict[str, Any] = {"target": {}, "steadyState": [calm], "blastRadius": {"others": ["wait"]}}
    file = write(tmp_path, method=[{"chaostoolkit": action}], **spec)
    url = f"--prometheus={gameday.platform.prometheus_url}"
    planned = gameday("plan", file, url, env=nowhere(tmp_path))
    assert planned.code == 0, planned.output
    assert "✓ steady state: calm" in planned.output


def test_what_touches_a_cluster_needs_one(gameday: Program, tmp_path: Path) -> None:
    """Neither to run nor to be restored is a cluster made up."""
    file = write(tmp_path, method=[CORDON])
    ended = gameday.run(file, env=nowhere(tmp_path))
    assert (ended.code, "no kubeconfig at" in ended.output) == (2, True), ended.output
    ended = gameday.run(write(tmp_path, method=[{**CORDON, "for": "1s"}]))
    assert ended.folder is not None, ended.output
    wrong = gameday("recover", "--from", ended.folder, env=nowhere(tmp_path))
    assert (wrong.code, "in another cluster" in wrong.output) == (2, True), wrong.output
