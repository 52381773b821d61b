"""What a request needs, as an API server reads it, and which permission allows another."""

from __future__ import annotations

import pytest

from gameday.platform.permission import Permission
from gameday.safety.plan import Plan
from gameday.safety.rbac import manifests, needed

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/api/v1/nodes/gpu-0", "get nodes - gpu-0"),
        ("GET", "/api/v1/nodes", "list nodes"),
        ("GET", "/api/v1/namespaces/a/pods", "list pods a"),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b", "patch deployments.apps a b"),
        ("PATCH", "/api/v1/namespaces/a/pods/b/resize", "patch pods/resize a b"),
        ("POST", "/api/v1/namespaces/a/pods/b/eviction", "create pods/eviction a b"),
        (
            "POST",
            "/apis/chaos-mesh.org/v1alpha1/namespaces/a/networkchaos",
            "create networkchaos.chaos-mesh.org a",
        ),
        ("GET", "/api/v1/namespaces/a/pods/b/exec", "get pods/exec a b"),
        ("GET", "/api/v1/namespaces/a", "get namespaces - a"),
        ("DELETE", "/api/v1/namespaces/a/configmaps/b%3Ac", "delete configmaps a b:c"),
    ],
)
def test_what_a_request_needs(method: str, path: str, needs: str) -> None:
    found = Permission.of_request(method, path, {}, watch=False)
    assert str(found) == needs
    assert found == Permission.parse(needs)


@pytest.mark.parametrize(
    "path",
    [
        "/version",
        "/apis",
        "/apis/apps/v1",
        "/api/v1",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    ],
)
def test_what_everybody_may(path: str) -> None:
    assert Permission.of_request("GET", path, {}, watch=False) is None


def test_a_watch_of_one_object_is_allowed_by_its_name() -> None:
    found = Permission.of_request("GET", "/api/v1/namespaces/a/pods", {"metadata.name": "b"}, watch=True)
    assert str(found) == "watch pods a b"


def test_a_narrower_permission_is_left_out() -> None:
    heard = [Permission.parse(n) for n in ("get nodes", "get nodes - gpu-0", "list pods", "list pods a")]
    texts = [str(p) for p in needed(Plan(1), heard)]
    assert "get nodes" in texts
    assert "list pods" in texts
    assert not {"get nodes - gpu-0", "list pods a"} & set(texts)


def test_names_and_verbs_are_gathered() -> None:
    wanted = map(
        Permission.parse,
        ("get nodes - a", "patch nodes - a", "get nodes - b", "patch nodes - b", "list nodes"),
    )
    role, binding = manifests(wanted, "x", ("ns", "me"))
    assert role["kind"] == "ClusterRole"
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"], "resourceNames": ["a", "b"]},
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "ns", "name": "me"}]
