"""The janitor as it is deployed: with the permissions of `deploy/janitor.yaml` and no others.

What a killed run has left is put back by an identity that can do little else; that it was, is said in the
cluster, in Slack and to Prometheus.
"""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.monitoring import free_port
from tests.support.platforms import ROOT, Platform
from tests.support.polling import until
from tests.support.program import Program
from tests.support.slack import FakeSlack
from tests.support.snapshot import Snapshot

MANIFEST = ROOT / "deploy" / "janitor.yaml"
TAINT = {
    "taint": {"nodes": {"names": ["gpu-2"]}, "key": "gameday.dev/test", "effect": "NoSchedule"},
    "for": "60s",
}
METHOD: list[dict[str, Any]] = [{"parallel": [SCALE, CORDON, TAINT]}]
RADIUS = {"nodes": 4, "pods": 4, "gpus": 32}
WHO = "system:serviceaccount:gameday:gameday-janitor"


class Kubectl:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __call__(self, *arguments: Any, stdin: str = "", check: bool = True) -> str:
        ended = subprocess.run(
            [self._platform.kubectl, "--kubeconfig", self._platform.kubeconfig, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or ended.returncode == 0, f"{arguments}: {ended.stderr}"
        return ended.stdout


@pytest.fixture
def kubectl(platform: Platform) -> Kubectl:
    return Kubectl(platform)


@pytest.fixture
def identity(platform: Platform, kubectl: Kubectl, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig with a token of the deployed ServiceAccount; the manifest is applied without its pods.

    The sandbox's API server knows no RBAC: there the janitor is the administrator.
    """
    if platform.name == "sandbox":
        yield platform.kubeconfig
        return
    documents = [d for d in yaml.safe_load_all(MANIFEST.read_text()) if d["kind"] != "Deployment"]
    manifest = yaml.safe_dump_all(documents)
    kubectl("create", "namespace", "gameday", check=False)
    kubectl("apply", "--filename", "-", stdin=manifest)
    token = kubectl("--namespace", "gameday", "create", "token", "gameday-janitor").strip()
    config = yaml.safe_load(platform.kubeconfig.read_text())
    config["users"] = [{"name": u["name"], "user": {"token": token}} for u in config["users"]]
    path = tmp_path / "kubeconfig-janitor"
    path.write_text(yaml.safe_dump(config))
    yield path
    kubectl("delete", "--filename", "-", stdin=manifest)


def test_the_manifest_is_what_the_api_server_takes(platform: Platform, kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "gameday", check=False)
    if platform.name == "sandbox":
        pytest.skip("needs the API server's own validation: make test-cluster")
    kubectl("create", "--dry-run=server", "--validate=strict", "--filename", MANIFEST)


def test_what_a_killed_run_left_is_put_back_by_the_deployed_identity(
    platform: Platform,
    kubectl: Kubectl,
    identity: Path,
    gameday: Program,
    slack: FakeSlack,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    with gameday.started(write(tmp_path, method=METHOD, blastRadius=RADIUS)) as run:
        until(lambda: sum(e["type"] == "fault" and e["state"] == "in" for e in run.events) == 3, "all are in")
        name = run.kill()
    port = free_port()
    janitor = Program(platform, tmp_path / "janitor")
    janitor.environment |= {
        "KUBECONFIG": str(identity),
        "SLACK_BOT_TOKEN": slack.token,
        "SLACK_API_URL": slack.url,
    }
    with janitor.running("recover", "--watch", "--listen", f"127.0.0.1:{port}", "--slack", "#gpu-gamedays"):
        until(lambda: 'outcome="restored"} 1' in _get(port, "metrics"), "it was counted", within=90)
        assert _get(port, "healthz") == "ok\n"
        assert "gameday_janitor_runs " in _get(port, "metrics")
        until(lambda: bool(slack.called("chat.postMessage")), "it was said in Slack")
        told = str(slack.called("chat.postMessage")[0].arguments)
        assert name in told
        assert "undid 4 changes, and nothing of the run is left" in told
        until(lambda: bool(_events(kubectl, name)), "it was said in the cluster")
    event = _events(kubectl, name)[0]
    assert (event["reason"], event["type"]) == ("Restored", "Normal")
    kubectl("--namespace", "gameday", "delete", "event", event["metadata"]["name"])


@pytest.mark.parametrize(
    "what",
    ["create deployments.apps", "delete pods", "create pods/exec", "delete nodes", "get secrets", "*"],
)
def test_the_deployed_identity_may_do_nothing_else(
    platform: Platform, kubectl: Kubectl, identity: Path, what: str
) -> None:
    if platform.name == "sandbox":
        pytest.skip("the sandbox's API server knows no RBAC: make test-cluster")
    verb, _, resource = what.partition(" ")
    answer = kubectl(
        "auth", "can-i", verb, resource or "*", "--namespace", "default", "--as", WHO, check=False
    )
    assert answer.strip() == "no"


def test_an_address_in_use_is_said(gameday: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = gameday("recover", "--watch", "--listen", f"127.0.0.1:{port}")
    assert ended.code not in (0, 70)
    assert f"cannot listen on 127.0.0.1:{port}" in ended.output


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--listen", ":9464"), "are for --watch"), (("--watch", "--listen", "nowhere"), "is not HOST:PORT")],
)
def test_options_that_do_not_fit_are_refused(gameday: Program, options: tuple[str, ...], told: str) -> None:
    ended = gameday("recover", *options)
    assert ended.code == 2
    assert told in ended.output


def _events(kubectl: Kubectl, run: str) -> list[dict[str, Any]]:
    listed = json.loads(kubectl("--namespace", "gameday", "get", "events", "--output", "json"))
    return [e for e in listed["items"] if e["involvedObject"].get("name") == f"gameday-{run}"]


def _get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""
