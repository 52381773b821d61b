"""The argocd probe on both platforms: what it reads, whose children it follows, and how it explains."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.extend import Measurement, PlanError
from gameday.faults.argocd import ArgoCD as Fault
from gameday.faults.argocd import ArgoCDSpec as FaultSpec
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.world import World
from gameday.probes.argocd import GROUP, ArgoCD, ArgoCDSpec, _family
from gameday.safety.ownership import argo_cd
from gameday.safety.plan import Plan
from gameday.sandbox.apiserver import ApiServer, write_kubeconfig
from tests.safety.cases import case
from tests.support import gitops
from tests.support.polling import eventually


@pytest.fixture(autouse=True, scope="module")
async def namespace(kube: Kube) -> None:
    await gitops.ensure_namespace(kube)


async def ask(kube: Kube, application: str, **spec: Any) -> Measurement:
    wanted = ArgoCDSpec.model_validate({"application": application, **spec})
    return await ArgoCD().measure(wanted, World(kube))


async def one(kube: Kube, application: str, **spec: Any) -> Any:
    return dict((await ask(kube, application, **spec)).series)[""]


async def test_what_can_be_read(kube: Kube) -> None:
    async with gitops.deployed(kube, gitops.application("settings", policy=gitops.HEALING)):
        assert await one(kube, "settings") == "Healthy"
        assert await one(kube, "settings", read="sync") == "Synced"
        assert await one(kube, "settings", read="revision") == gitops.NEWEST
        assert await one(kube, "settings", read="phase") == "Succeeded"
        assert -2 < await one(kube, "settings", read="sinceReconcile") < 60
        assert (await ask(kube, "settings")).message == ""


async def test_an_application_that_is_not_there_is_no_data(kube: Kube) -> None:
    found = await ask(kube, "nobody")
    assert (found.series, found.message) == ((), "there is no Application argocd/nobody")


async def test_an_application_set_without_applications_is_no_data(kube: Kube) -> None:
    spec = ArgoCDSpec.model_validate({"applicationSet": "clusters"})
    found = await ArgoCD().measure(spec, World(kube))
    assert found.series == ()
    assert found.message == "ApplicationSet argocd/clusters has made no Application"


async def test_children_are_followed(kube: Kube) -> None:
    found = dict((await ask(kube, "gpu-platform", children=True)).series)
    assert set(found) == {
        f"Application argocd/{n}" for n in ("gpu-platform", "inference", "cluster-settings")
    }


def named(name: str, *deploys: tuple[str, str], made_by: str = "") -> Object:
    resources = [{"group": GROUP, "kind": k, "namespace": "argocd", "name": n} for k, n in deploys]
    owner = {"kind": "ApplicationSet", "name": made_by, "uid": "1", "controller": True}
    meta = {"name": name, "namespace": "argocd", "uid": name, "ownerReferences": [owner] if made_by else []}
    status = {"resources": resources}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": meta, "status": status}


def test_applications_of_sets_and_of_applications_are_one_family() -> None:
    known = [
        named("root", ("ApplicationSet", "clusters"), ("Application", "tools")),
        named("tools", ("Application", "root"), ("Application", "metrics")),  # a circle, and one deeper
        named("east", made_by="clusters"),
        named("metrics"),
        named("stranger", made_by="others"),
    ]
    found = [a["metadata"]["name"] for a in _family(known[:1], known)]
    assert found == ["root", "tools", "east", "metrics"]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ({"repoURL": "https://git.example.com/gone.git"}, "permission: ComparisonError"),
        ({"targetRevision": "v9"}, "manifest generation: ComparisonError"),
        ({"path": "nowhere"}, "manifest generation: ComparisonError"),
    ],
    ids=["repository", "revision", "path"],
)
async def test_an_application_that_cannot_be_compared_says_why(
    source: Object, cause: str, kube: Kube
) -> None:
    manifest = gitops.application("broken", policy=gitops.HEALING)
    async with gitops.deployed(kube, manifest) as ref:
        await kube.patch(ref, {"spec": {"source": source}}, "merge")
        await eventually(lambda: one(kube, "broken", read="sync"), lambda sync: sync == "Unknown")
        assert cause in (await ask(kube, "broken", read="sync")).message


async def test_without_argo_cd_it_is_said_and_nothing_else_stops(tmp_path: Any) -> None:
    """An API of its own, since the platforms have Argo CD's kinds."""
    server = ApiServer()
    write_kubeconfig(tmp_path / "kubeconfig", await server.start(), "gameday-bare")
    try:
        async with await Kube.connect(tmp_path / "kubeconfig") as bare:
            with pytest.raises(PlatformError, match="is Argo CD installed"):
                await ask(bare, "inference")
            spec = FaultSpec.model_validate({"rollback": {"application": "inference"}})
            with pytest.raises(PlanError, match="is Argo CD installed"):
                await Fault().of(spec).plan(spec, World(bare))
            assert await argo_cd(case(tmp_path, Plan(seed=0), World(bare))) == []
    finally:
        await server.stop()
