"""A command imports of a large package what it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast


def test_connecting_leaves_the_synchronous_client_out_until_somebody_wants_it(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    contexts = [{"name": "here", "context": {"cluster": "here", "user": "me"}}]
    clusters = [{"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}]
    users = [{"name": "me", "user": {"token": "t"}}]
    document = {"current-context": "here", "contexts": contexts, "clusters": clusters, "users": users}
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **document}))
    program = (
        "import asyncio, sys; from gameday.platform.kube import Kube\n"
        "asyncio.run(asyncio.run(Kube.connect(sys.argv[1])).close())\n"
        "print([name for name in ('requests', 'kubernetes.config') if name in sys.modules])\n"
        "import kubernetes; from kubernetes import config\n"
        "print(kubernetes.client.CoreV1Api.__name__, config.load_config.__name__, kubernetes.aio.__name__)"
    )
    command = [sys.executable, "-c", program, str(kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "CoreV1Api load_config kubernetes.aio"], done.stderr
