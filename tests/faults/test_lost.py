"""When nothing makes a pod again, by what its owners are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.faults.lost import not_restored, with_dependents, with_losses
from gameday.platform.effect import Effect, Kind, of_pod
from gameday.platform.jobs import at_end, past_failed_indexes
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.world import World
from tests.platform.arrange import pod
from tests.support.kinds import Served, serving
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast

SPACE = "training"
JOBSET = "jobset.x-k8s.io/v1alpha2"
INDEXED: Object = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 1}
FAIL_INDEX = {"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _owner(owner: Object, uid: str = "") -> list[Object]:
    meta = owner["metadata"]
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": meta["name"],
            "uid": uid or meta["uid"],
            "controller": True,
        }
    ]


async def _lost(kube: Kube, owner: Object, uid: str = "", **annotations: str) -> str:
    made = pod(SPACE, node="gpu-0")
    made["metadata"] |= {"ownerReferences": _owner(owner, uid), "annotations": annotations}
    effects, unread = await with_losses([of_pod(await kube.create(made), ends=True, comes=True)], kube)
    return "; ".join((*not_restored(effects)[0], *unread))


async def _made(kube: Kube, version: str, kind: str, owner: Object | None = None, **rest: Any) -> Object:
    meta: Object = {"name": kind.lower(), "namespace": SPACE}
    if owner:
        meta["ownerReferences"] = _owner(owner)
    return await kube.create({"apiVersion": version, "kind": kind, "metadata": meta, **rest}) | {
        "apiVersion": version,
        "kind": kind,
    }


async def test_by_owner(tmp_path: Path) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        kept = await _made(kube, "v1", "ConfigMap")  # whatever has the name and the UID is there
        assert await _lost(kube, kept) == ""
        assert "ConfigMap training/configmap is gone" in await _lost(kube, kept, "another-uid")
        elsewhere = {"apiVersion": "example.com/v1", "kind": "Maker", "metadata": {"name": "m", "uid": "u"}}
        assert (await _lost(kube, elsewhere)).startswith("whether Maker training/m makes its pods again")


@pytest.mark.parametrize(("restarts", "lost"), [(1, False), (0, True)])
async def test_a_job_of_a_jobset(restarts: int, lost: bool, tmp_path: Path) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        async with serving(kube, [Served(JOBSET, "JobSet", "jobsets")]):
            above = await _made(kube, JOBSET, "JobSet", spec={"failurePolicy": {"maxRestarts": restarts}})
            job = await _made(
                kube, "batch/v1", "Job", above, spec={"backoffLimit": 0, "template": {"spec": {}}}
            )
            assert bool(await _lost(kube, job)) is lost


@pytest.mark.parametrize(
    ("spec", "failures", "words"),
    [
        (INDEXED, "0", ""),
        (INDEXED, "1", "no failure is left to its index of Job training/job"),
        ({**INDEXED, "podFailurePolicy": {"rules": [FAIL_INDEX]}}, "0", "fails its index"),
        (INDEXED | {"maxFailedIndexes": 0}, "0", ""),
        (INDEXED | {"maxFailedIndexes": 0}, "1", "ends all its pods: no failure is left of its maxFailedIn"),
        (INDEXED | {"maxFailedIndexes": 1}, "1", "no failure is left to its index of Job training/job"),
        (
            INDEXED | {"maxFailedIndexes": 0, "podFailurePolicy": {"rules": [FAIL_INDEX]}},
            "0",
            "ends all its pods: no failure is left of its maxFailedIndexes 0",
        ),
        ({"backoffLimit": 1}, "0", ""),
        ({"backoffLimit": 0}, "0", "no failure is left of its backoffLimit 0"),
        ({}, "0", ""),
    ],
)
async def test_a_job_by_its_limits(spec: Object, failures: str, words: str, tmp_path: Path) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        job = await _made(kube, "batch/v1", "Job", spec={**spec, "template": {"spec": {}}})
        said = await _lost(kube, job, **{"batch.kubernetes.io/job-index-failure-count": failures})
        assert words in said if words else said == ""


@pytest.mark.parametrize(("limit", "ending"), [(0, {"killed", "beside"}), (1, set[str]())])
async def test_all_pods_of_a_job_end_that_fails(limit: int, ending: set[str], tmp_path: Path) -> None:
    """One pod is killed: the Job's controller ends the other one that runs, and no pod that is not its."""
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        labels = {"controller-uid": "of-this-job"}
        spec = {"backoffLimit": limit, "selector": {"matchLabels": labels}, "template": {"spec": {}}}
        job = await _made(kube, "batch/v1", "Job", spec=spec)
        there: dict[str, Object] = {}
        for name, owners in (
            ("killed", _owner(job)),
            ("beside", _owner(job)),
            ("over", _owner(job)),
            ("else", []),
        ):
            made = pod(SPACE, node="gpu-0")
            made["metadata"] |= {"name": name, "ownerReferences": owners, "labels": labels}
            there[name] = await kube.create(made)
        over = Ref("v1", "Pod", "over", SPACE)
        await kube.patch(over, {"status": {"phase": "Succeeded"}}, "merge", subresource="status")
        effects, _ = await with_losses([of_pod(there["killed"], ends=True)], kube)
        assert {e.ref.name for e in effects if e.lost} == ending
        assert all(e.ends for e in effects)


def _codes(action: str, operator: str, *values: int) -> Object:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values)}}


DISRUPTED: Object = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


@pytest.mark.parametrize(
    ("rules", "evicted", "action"),
    [
        ([DISRUPTED], True, "Ignore"),
        ([DISRUPTED], False, "Count"),
        ([_codes("FailJob", "In", 42), DISRUPTED], True, "Ignore"),
        ([_codes("FailJob", "In", 137), DISRUPTED], True, "FailJob"),
        ([_codes("FailJob", "NotIn", 3)], False, "FailJob"),
        ([_codes("Ignore", "In", 143)], False, "Count"),  # it may be 137
        ([_codes("Ignore", "In", 137, 143)], False, "Ignore"),
    ],
)
def test_what_a_policy_does(rules: list[Object], evicted: bool, action: str) -> None:
    assert at_end({"podFailurePolicy": {"rules": rules}}, evicted=evicted) == action


@pytest.mark.parametrize(
    ("failed", "most", "past"),
    [(None, 0, True), (None, 1, False), ("0,3-5", 4, True), ("0,3-5", 5, False), ("1", None, False)],
)
def test_indexes_that_failed_before_count(failed: str | None, most: int | None, past: bool) -> None:
    job: Object = {"spec": {"maxFailedIndexes": most}, "status": {"failedIndexes": failed}}
    assert past_failed_indexes(job, 1) is past
    assert not past_failed_indexes(job, 0)


def test_sentences() -> None:
    def effect(name: str, lost: str = "", *, ends: bool = True) -> Effect:
        made = {"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {}}
        return Effect.from_data({**of_pod(made, ends=ends).to_data(), "lost": lost})

    pods = [effect("w"), effect("b", "why"), effect("c", "why"), effect("stays", ends=False)]
    assert not_restored(pods) == (
        ("pod a/b, a/c: lost for good, why",),
        ("1 pod: replaced by controllers, not restored",),
    )
    assert not_restored([]) == ((), ())


async def test_claims_by_owner(tmp_path: Path) -> None:
    """Whatever has another owner that stays, stays."""

    def claim(name: str, *owners: Object) -> Object:
        meta = {"name": name, "namespace": SPACE, "ownerReferences": [o for r in owners for o in _owner(r)]}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": {}}

    async with unruly(tmp_path) as server, await connect(server) as kube:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        kept = await _made(kube, "v1", "ConfigMap")
        pods = [await kube.create(pod(SPACE)) | {"apiVersion": "v1", "kind": "Pod"} for _ in range(2)]
        first = await kube.create(claim("first", pods[0]))
        for made in (claim("both", *pods), claim("kept", pods[0], kept), claim("second", first)):
            await kube.create(made)
        ending = [of_pod(p, ends=True) for p in pods]
        for ends, names in ((ending[:1], ["first", "second"]), (ending, ["both", "first", "second"])):
            effects, unread = await with_dependents(ends, World(kube))
            assert sorted(e.ref.name for e in effects if e.kind is Kind.CLAIM) == names
            assert unread == ()
