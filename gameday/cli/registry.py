"""An API server in this process, for the Lease, record and locks of a run that touches no cluster.

The server ends with the process. What a run that was killed has left is restored from the run's folder; a
record of another cluster is refused here as in any wrong cluster, by the name of this one.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gameday.platform.kubeconfig import existing

if TYPE_CHECKING:
    from gameday.experiment.model import Experiment, Step

CLUSTER = "no-cluster"


def needs_no_cluster(experiment: Experiment) -> bool:
    """Whether nothing in an experiment asks Kubernetes: no fault, no probe, and no target."""
    from gameday.safety.installed import fault_of, probe_of

    spec = experiment.spec
    target = spec.target
    asked = [fault_of(step.kind, step.spec).asks_cluster for step in _faults(spec.method)]
    asked += [probe_of(c.kind).asks_cluster for c in (*spec.steady_state, *spec.abort_if)]
    return not (any(asked) or target.context or target.namespaces or target.nodes)


def has_no_cluster(kubeconfig: str | None, context: str | None) -> bool:
    """Whether there is no way to a cluster, and none is asked for: `Kube.connect` would find none."""
    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return not (kubeconfig or context or "KUBERNETES_SERVICE_HOST" in os.environ or existing(files))


@asynccontextmanager
async def registry() -> AsyncIterator[str]:
    """The kubeconfig of the server, which lives as long as the block."""
    from gameday.sandbox.apiserver.kubeconfig import write_kubeconfig
    from gameday.sandbox.apiserver.server import ApiServer

    token = secrets.token_hex(16)
    server = ApiServer(token=token, uid=CLUSTER)
    url = await server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="gameday-") as folder:
            yield str(write_kubeconfig(Path(folder) / "kubeconfig", url, CLUSTER, token))
    finally:
        await server.stop()


def _faults(steps: Iterable[Step]) -> list[Step]:
    return [f for s in steps for f in ([s] if s.is_fault else _faults(s.steps))]
