"""Users of a platform: each a ServiceAccount with a token of its own, and the kubeconfig made of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from tests.support.platforms import Platform

ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class User:
    """A user as the API server knows it."""

    name: str
    kubeconfig: Path

    @property
    def env(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}


@asynccontextmanager
async def user(
    platform: Platform, kube: Kube, folder: Path, name: str, rules: Iterable[Object] = ()
) -> AsyncIterator[User]:
    """A user who may do what the rules of a ClusterRole say; the sandbox's may do everything."""
    meta = {"name": f"test-{name}"}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": meta["name"]}
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}},
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [*rules]},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [subject],
        },
    ]
    for obj in made:
        await kube.create(obj)
    try:
        path = folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config_of(platform, await token(kube, name))))
        yield User(f"system:serviceaccount:default:{name}", path)
    finally:
        for obj in made:
            await kube.delete(Ref.of(obj))


async def token(kube: Kube, name: str, namespace: str = "default") -> str:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    answer = await kube.ask("POST", ACCOUNTS.path(namespace, name, "token"), body=body)
    return str(answer["status"]["token"])


def config_of(platform: Platform, token: str) -> Object:
    """The platform's kubeconfig with another token."""
    config: Object = yaml.safe_load(platform.kubeconfig.read_text())
    config["users"] = [{"name": u["name"], "user": {"token": token}} for u in config["users"]]
    return config
