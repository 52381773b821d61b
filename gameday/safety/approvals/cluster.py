"""Approvals in the plan's own cluster: by `gameday approve PLAN`, and attested by its API server.

An approval is a CertificateSigningRequest that nobody signs. Of the kinds that every API server has, it alone
says who made it in a field that its maker can't choose: the server sets spec.username on creation, and spec
can't be changed afterwards (k8s.io/kubernetes, pkg/registry/certificates/certificates/strategy.go). Whoever
may create one approves under their own name, and under no other; managedFields, labels and ConfigMaps hold
what their writer likes. spec.signerName names the plan, and spec.expirationSeconds says for how long. The
controller manager removes requests that are a day old (pkg/controller/certificates/cleaner).
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from datetime import datetime

from gameday.experiment.model import source_of
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.resources import SIGNING_REQUESTS
from gameday.safety.approvals.approval import Approval, Source
from gameday.safety.plan import Plan

NEEDS = ("list certificatesigningrequests.certificates.k8s.io",)
LEAST = 600  # seconds: the API server takes no shorter expirationSeconds
MOST = 24 * 3600  # seconds until the controller manager removes it
SIGNER = "approval.gameday.dev"
WHERE = "in the cluster"
# The API server wants a request that can be parsed. This one's key was thrown away, and no signer serves it.
_UNSIGNED = b"""-----BEGIN CERTIFICATE REQUEST-----
MIGRMEUCAQAwEjEQMA4GA1UEAwwHZ2FtZWRheTAqMAUGAytlcAMhAAhGmbNvyvjc
fkayeLlWCj4BCD6FBepFy2DiyESGjtU6oAAwBQYDK2VwA0EANiZAJQpCodPmNJIm
4JM5OtB3y8VCHMfsoEign2bTW8IFjcxwXBS3C/OvVRl1dD/la8TjMWIGnFDddYDy
4VN4DQ==
-----END CERTIFICATE REQUEST-----
"""


async def approve(kube: Kube, digest: str, seconds: float) -> Approval:
    """Approve a plan under the name that the API server knows us by. Raises PlatformError."""
    name = f"gameday-approval-{digest[:12]}-{secrets.token_hex(4)}"
    spec = {
        "request": b64encode(_UNSIGNED).decode(),
        "signerName": _signer(digest),
        "expirationSeconds": min(max(int(seconds), LEAST), MOST),
        "usages": ["digital signature"],
    }
    body = {
        "apiVersion": SIGNING_REQUESTS.api_version,
        "kind": SIGNING_REQUESTS.kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    return _read(await kube.create(body))


class InCluster(Source):
    """The approvals that the plan's cluster holds."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def approvals(self, plan: Plan) -> list[Approval]:
        found = await _requests(self._kube, plan.digest)
        read = [_read(obj) for obj in found if not _denied(obj)]
        return [a for a in read if not source_of(a.by)]  # nobody's user name is a name in Slack, say


async def _requests(kube: Kube, digest: str) -> list[Object]:
    signer = _signer(digest)
    found = await kube.list(SIGNING_REQUESTS, fields={"spec.signerName": signer})
    return [obj for obj in found if obj["spec"].get("signerName") == signer]


def _signer(digest: str) -> str:
    """A signer's name that holds the whole digest, in two labels: one has at most 63 characters."""
    return f"{SIGNER}/{digest[:32]}.{digest[32:]}"


def _read(obj: Object) -> Approval:
    made = datetime.fromisoformat(obj["metadata"]["creationTimestamp"]).timestamp()
    spec = obj["spec"]
    return Approval(str(spec["username"]), made + float(spec.get("expirationSeconds") or 0), WHERE)


def _denied(obj: Object) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Denied" for c in conditions)
