"""`gameday doctor`: a table of every integration, what to do, and an exit code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from tests.e2e.experiments import SCALE, write
from tests.support.platforms import ROOT, Platform
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.slack import FakeSlack


def examined(gameday: Program, *, code: int = 0, **env: str) -> dict[str, dict[str, Any]]:
    """What was found, by check."""
    ended = gameday("doctor", "--json", env=env, stderr=False)
    assert ended.code == code, ended.output
    return {each["check"]: each for each in json.loads(ended.output)}


def test_all_is_well(gameday: Program, slack: FakeSlack) -> None:
    found = examined(gameday, SLACK_BOT_TOKEN=slack.token, SLACK_API_URL=slack.url)
    for check in ("api", "permissions", "lever", "prometheus", "slack", "slurm"):
        assert found[check]["state"] == "ok", found[check]
    if gameday.platform.name == "sandbox":  # its Cluster API serves v1beta2 alone
        assert found["cluster api"]["state"] == "ok", found["cluster api"]
    assert found["janitor"]["state"] == "warning"
    assert "deploy/janitor.yaml" in found["janitor"]["advice"]
    assert all(each["state"] in ("ok", "absent", "warning") for each in found.values())


def test_it_is_a_table_for_people(gameday: Program) -> None:
    ended = gameday("doctor")
    assert ended.code == 0, ended.output
    assert "what to do" in ended.output
    assert "gameday-janitor" in ended.output


def test_the_janitor_is_deployed_by_what_is_advised(platform: Platform, gameday: Program) -> None:
    """With all steps, where the namespace is not there; the image is for whoever builds it."""

    def kubectl(command: str) -> str:
        words = [platform.kubectl, "--kubeconfig", str(platform.kubeconfig), *command.split()[1:]]
        ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        return "" if ran.returncode == 0 else f"{command}: {ran.stderr}"

    assert not kubectl("kubectl delete namespace gameday --ignore-not-found")
    advice = examined(gameday)["janitor"]["advice"]
    assert "deploy/Dockerfile" in advice
    commands = advice.partition(" (")[0].split(" && ")
    try:
        assert not "".join(map(kubectl, commands))
        assert "is not there" not in examined(gameday)["janitor"]["says"]
    finally:
        kubectl("kubectl delete --ignore-not-found -f deploy/janitor.yaml")


@pytest.mark.parametrize(
    ("check", "environment", "says"),
    [
        ("prometheus", {"GAMEDAY_PROMETHEUS_URL": "http://127.0.0.1:1"}, "refused"),
        ("slurm", {"GAMEDAY_SLURM_URL": "http://127.0.0.1:1"}, "does not answer"),
        ("slurm", {"SLURM_JWT": ""}, "token"),
        ("slack", {"SLACK_BOT_TOKEN": "xoxb-wrong"}, "invalid_auth"),
    ],
)
def test_what_does_not_answer_is_named(
    check: str, environment: dict[str, str], says: str, gameday: Program, slack: FakeSlack
) -> None:
    found = examined(gameday, code=3, **{"SLACK_API_URL": slack.url, **environment})
    assert found[check]["state"] == "broken"
    assert says in found[check]["says"]
    reach = "see that it runs, and that it can be reached from this machine"
    assert found[check]["advice"] == (reach if "http" in next(iter(environment.values())) else "")
    assert found["api"]["state"] == "ok"


def test_a_scope_that_is_missing_is_named(gameday: Program, slack: FakeSlack) -> None:
    slack.scopes.discard("files:write")
    found = examined(gameday, code=3, SLACK_BOT_TOKEN=slack.token, SLACK_API_URL=slack.url)
    assert "files:write" in found["slack"]["says"]


def test_an_api_server_that_is_away_is_all_that_is_said(gameday: Program, api_proxy: ApiProxy) -> None:
    api_proxy.cut()
    found = examined(gameday, code=3, KUBECONFIG=str(api_proxy.kubeconfig))
    assert list(found) == ["api"]


async def test_a_run_that_died_is_named(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    with gameday.started(write(tmp_path, method=[SCALE])) as run:
        run.fault_is("in")
        name = run.kill()
    try:
        found = examined(gameday, code=3) if await _dies(kube, name) else {}
        assert found["runs"]["state"] == "broken"
        assert found["runs"]["advice"] == f"gameday recover --run {name}"
    finally:
        assert gameday("recover", "--run", name, "--force").code == 0


async def _dies(kube: Kube, name: str) -> bool:
    """A run on this machine whose process is gone is dead at once."""
    from gameday.ledger.survey import survey

    return any(run.run == name and not run.alive for run in (await survey(kube)).runs)
