"""Values that admission changed in a write are put back, and said; a change that it denied was not made."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiohttp import web

from gameday.events import Event, Warn
from gameday.ledger.edits import Edit
from gameday.ledger.ledger import Entry, Ledger
from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.operations import Create, Patch
from gameday.ledger.recovery import How, recover
from gameday.ledger.store import ensure_namespace
from gameday.node.task import Task
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.experiments import write
from tests.platform.arrange import deployment, unique
from tests.support.ledgers import unguarded
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program
from tests.systems.webhooks import Webhooks

NAMESPACE = "platform"
RUN = "admission-test"
REPLICAS = ("spec", "replicas")
GROUP = "admissionregistration.k8s.io/v1"
WITHOUT_LABELS = "has(object.metadata.labels) ? [JSONPatch{op: 'remove', path: '/metadata/labels'}] : []"
CHANGED = "spec.replicas: 0 was written, 2 was stored"


class Policy(Protocol):
    """A policy that stores `value` wherever its condition holds of the Deployment, until it is left."""

    def __call__(self, workload: Ref, condition: str, value: int) -> AbstractAsyncContextManager[None]: ...


@pytest.fixture
def policy(platform: Platform, kube: Kube) -> Policy:
    if platform.name == "sandbox":
        pytest.skip("about real admission policies: --platform cluster")

    @asynccontextmanager
    async def in_force(workload: Ref, condition: str, value: int) -> AsyncIterator[None]:
        made = [Ref.of(await kube.create(o)) for o in _policy(unique("replicas"), workload, condition, value)]
        try:
            await eventually(lambda: _probed(kube, workload), lambda seen: seen, within=60)
            yield
        finally:
            for ref in made:
                await kube.delete(ref)

    return in_force


def _policy(name: str, workload: Ref, condition: str, value: int) -> list[Object]:
    """Of `workload`, and of one whose name is longer, by which a test sees that the policy is in force."""
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"],
    }
    set_to = {"expression": f"Object{{spec: Object.spec{{replicas: {value}}}}}"}
    named = {"name": "named", "expression": f"object.metadata.name.startsWith('{workload.name}')"}
    probe = f"object.metadata.name != '{workload.name}'"
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [named, {"name": "when", "expression": f"{probe} || {condition}"}],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": set_to},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": WITHOUT_LABELS}},
        ],
    }
    meta = {"name": name}
    bound: Object = {"kind": "MutatingAdmissionPolicyBinding", "metadata": meta, "spec": {"policyName": name}}
    policy: Object = {"kind": "MutatingAdmissionPolicy", "metadata": meta, "spec": spec}
    return [{"apiVersion": GROUP, **o} for o in (policy, bound)]


async def _probed(kube: Kube, workload: Ref) -> bool:
    made = await kube.create(deployment(NAMESPACE, f"{workload.name}-probe", 7))
    await kube.delete(Ref.of(made))
    return bool(made["spec"]["replicas"] != 7)


@pytest.fixture
async def workload(kube: Kube) -> AsyncIterator[Ref]:
    """Of four replicas, whose controller makes no pods."""
    ref = Ref.of(await kube.create(deployment(NAMESPACE, unique("admitted"), 4)))
    yield ref
    await kube.delete(ref)


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
async def ledger(platform: Platform, tmp_path: Path, heard: list[Event]) -> AsyncIterator[Ledger]:
    async with await Kube.connect(platform.kubeconfig) as ours:
        await ensure_namespace(ours)
        made = unguarded(ours, RUN, tmp_path, {"experiment": "test"}, heard.append)
        yield made
        await made.undo()
        await made.close(restored=True)


async def _scaled(ledger: Ledger, ref: Ref, replicas: int) -> Patch:
    patch = await Patch.of(ledger.kube, ref, Edit(REPLICAS, replicas))
    assert patch is not None
    return patch


async def _replicas(kube: Kube, ref: Ref) -> int:
    return int((await kube.get(ref))["spec"]["replicas"])


async def _store(kube: Kube, ref: Ref, replicas: int, manager: str) -> None:
    await kube.patch(ref, {"spec": {"replicas": replicas}}, "merge", manager=manager)


async def _by_another_process(kube: Kube) -> list[str]:
    """What `gameday recover` does after a kill -9: it has the record alone. Returns what the audit saw."""
    result = await recover(kube, RUN, lambda _: None, how=How(force=True))
    return [a.state for a in result.audits]


# -- on either platform: the object as a policy leaves it, with our field manager ------------------


async def test_a_value_that_we_own_goes_back_though_we_did_not_write_it(
    kube: Kube, ledger: Ledger, workload: Ref
) -> None:
    """The run died before it heard that the server had stored 2 where 0 was written."""
    await ledger.intend("1", [await _scaled(ledger, workload, 0)])
    await _store(kube, workload, 2, ledger.kube.manager)
    assert await _by_another_process(kube) == ["restored"]
    assert await _replicas(kube, workload) == 4


async def test_who_writes_the_field_after_us_keeps_it(kube: Kube, ledger: Ledger, workload: Ref) -> None:
    await ledger.intend("1", [await _scaled(ledger, workload, 0)])
    await _store(kube, workload, 2, ledger.kube.manager)
    await _store(kube, workload, 3, "horizontal-pod-autoscaler")
    assert await _by_another_process(kube) == ["kept"]
    assert await _replicas(kube, workload) == 3


@pytest.mark.parametrize("by", ["this process", "another process"])
async def test_a_later_undo_of_ours_makes_nobodys_value_ours(
    by: str, kube: Kube, ledger: Ledger, workload: Ref
) -> None:
    """Our undo of the second change writes what somebody set before it: that stays theirs."""
    await ledger.step("1").perform([await _scaled(ledger, workload, 2)])
    await _store(kube, workload, 6, "kubectl")
    await ledger.step("2").perform([await _scaled(ledger, workload, 1)])
    if by == "this process":
        await ledger.undo("2")
        await ledger.undo("1")
    else:
        await _by_another_process(kube)
    assert await _replicas(kube, workload) == 6


async def test_an_api_server_alone_stores_what_a_program_on_a_node_is_made_of(
    ledger: Ledger, heard: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its built-in admission adds to a pod is nothing that anybody has to be warned of."""
    task = Task(RUN, "kubelet-stop", lease=("gameday", RUN), pod=("gameday", RUN))
    ref = Ref("v1", "Pod", RUN, "gameday")
    await ledger.step("1").perform([NodeProgram(ref, RUN, "no-node", task, Settings("python"))])
    assert [e for e in heard if isinstance(e, Warn)] == []
    monkeypatch.setattr("gameday.ledger.node_program.END_WITHIN", 1.0)  # no kubelet ends it
    await ledger.undo()


# -- real policies ---------------------------------------------------------------------------------


async def test_what_was_stored_is_recorded_said_and_put_back(
    policy: Policy, kube: Kube, ledger: Ledger, workload: Ref, heard: list[Event]
) -> None:
    async with policy(workload, "object.spec.replicas < 2", 2):
        (entry,) = await ledger.step("1").perform([await _scaled(ledger, workload, 0)])
        assert entry.operation.summary == "spec.replicas: 4 → 2 (0 was written)"
        assert [CHANGED in e.message for e in heard if isinstance(e, Warn)] == [True]
        assert await _by_another_process(kube) == ["restored"]
    assert await _replicas(kube, workload) == 4


async def test_a_new_object_without_the_runs_label_is_said_and_goes_again(
    policy: Policy, kube: Kube, ledger: Ledger, workload: Ref, heard: list[Event]
) -> None:
    async with policy(workload, "true", 2):
        create = Create.of(deployment(NAMESPACE, f"{workload.name}-made", 7), RUN)
        await ledger.step("1").perform([create])
    assert "labels" not in (await kube.get(create.ref))["metadata"]
    (said,) = (e.message for e in heard if isinstance(e, Warn))
    assert "spec.replicas: 7 was written, 2 was stored" in said
    assert f'metadata.labels: {{"gameday.dev/run": "{RUN}"}} was written, unset was stored' in said
    assert await _by_another_process(kube) == ["restored"]
    assert await kube.find(create.ref) is None


async def test_an_answer_that_nobody_heard_is_put_back(
    policy: Policy, kube: Kube, ledger: Ledger, workload: Ref
) -> None:
    (entry,) = await ledger.intend("1", [await _scaled(ledger, workload, 0)])
    async with policy(workload, "object.spec.replicas < 2", 2):
        await entry.operation.make(ledger.kube)
        assert await _replicas(kube, workload) == 2
        assert await _by_another_process(kube) == ["restored"]
    assert await _replicas(kube, workload) == 4


async def test_an_undo_that_admission_changes_has_failed_until_it_may_pass(
    policy: Policy, kube: Kube, ledger: Ledger, workload: Ref
) -> None:
    await ledger.step("1").perform([await _scaled(ledger, workload, 1)])
    async with policy(workload, "object.spec.replicas > 3", 3):
        (entry,) = await ledger.undo()
        assert (entry.state, await _replicas(kube, workload)) == ("failed", 3)
        assert "4 was written, 3 was stored" in entry.message
        (audited,) = await ledger.audit()
        assert audited.state == "left"
        assert "spec.replicas: 4 → 3" in audited.message

    await _goes_back(ledger, entry, kube, workload)


async def _goes_back(ledger: Ledger, entry: Entry, kube: Kube, workload: Ref) -> None:
    """Undone again and again until nobody is in the way any more."""

    async def undone() -> str:
        await ledger.undo()
        return entry.state

    await eventually(undone, lambda state: state == "undone", within=60)
    assert await _replicas(kube, workload) == 4


def _experiment(tmp_path: Path, workload: Ref) -> Path:
    scale = {"workload": f"deployment/{workload.name}", "namespace": NAMESPACE, "replicas": 0}
    return write(tmp_path, method=[{"scale": scale, "for": "1s"}])


async def test_a_run_says_at_once_that_its_fault_is_not_in(
    policy: Policy, kube: Kube, gameday: Program, tmp_path: Path, workload: Ref
) -> None:
    async with policy(workload, "object.spec.replicas < 2", 2):
        ended = gameday.run(_experiment(tmp_path, workload))
        assert await _replicas(kube, workload) == 4
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    said = " ".join(ended.output.split())
    assert "not waited for, since" in said
    assert CHANGED in said


@pytest.mark.parametrize("state", ["intended", "made"])
async def test_killed_in_between_nothing_of_it_stays(
    state: str, policy: Policy, kube: Kube, gameday: Program, tmp_path: Path, workload: Ref
) -> None:
    async with policy(workload, "object.spec.replicas < 2", 2):
        with gameday.started(_experiment(tmp_path, workload)) as run:
            run.until(lambda e: e["type"] == "change" and e["state"] == state, state)
            name = run.kill()
        ended = gameday("recover", "--run", name, "--force")
        assert ended.code == 0, ended.output
        assert await _replicas(kube, workload) == 4


# -- real webhooks ---------------------------------------------------------------------------------


@asynccontextmanager
async def _denied(kube: Kube, workload: Ref, status: dict[str, Any], directory: Path) -> AsyncIterator[None]:
    """A webhook denies each change of the Deployment with that status, until the block is left."""

    async def review(request: web.Request) -> web.Response:
        asked = await request.json()
        answer = {"uid": asked["request"]["uid"], "allowed": False, "status": status}
        return web.json_response(
            {"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": answer}
        )

    hooks = Webhooks(directory)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    app = web.Application()
    app.router.add_post("/deny", review)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", hooks.port, ssl_context=tls).start()
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"]}
    hook = {
        "name": "freeze.example.com",
        "clientConfig": hooks.at("deny"),
        "rules": [{**rule, "resources": ["deployments"]}],
        "matchConditions": [{"name": "named", "expression": f"object.metadata.name == '{workload.name}'"}],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    meta = {"name": unique("freeze")}
    made = {"apiVersion": GROUP, "kind": "ValidatingWebhookConfiguration", "metadata": meta}
    try:
        ref = Ref.of(await kube.create({**made, "webhooks": [hook]}))
        try:
            await eventually(lambda: _frozen(kube, workload), lambda frozen: frozen, within=60)
            yield
        finally:
            await kube.delete(ref)
    finally:
        await runner.cleanup()


async def _frozen(kube: Kube, workload: Ref) -> bool:
    try:
        await kube.dry_patch(workload, [{"op": "replace", "path": "/spec/replicas", "value": 7}])
    except ApiError as error:
        return error.denied
    return False


@pytest.mark.parametrize(
    "status",
    [{"code": 404}, {"code": 404, "reason": "NotFound", "details": {"group": "apps"}}, {"code": 500}],
    ids=["404", "404-as-if-gone", "500"],
)
async def test_what_a_webhook_denies_was_not_made_and_is_not_undone(
    status: dict[str, Any], platform: Platform, kube: Kube, ledger: Ledger, workload: Ref, tmp_path: Path
) -> None:
    """With whatever code, and with the details of an object which is gone."""
    if platform.name == "sandbox":
        pytest.skip("about real webhooks: --platform cluster")
    (made,) = await ledger.step("1").perform([await _scaled(ledger, workload, 1)])
    refused = await _scaled(ledger, workload, 2)
    if "details" in status:
        status = status | {"details": {**status["details"], "kind": "deployments", "name": workload.name}}
    async with _denied(kube, workload, status, tmp_path):
        with pytest.raises(ApiError, match="denied the request"):
            await ledger.step("2").perform([refused])
        assert [e.state for e in ledger.entries if e.operation is not made.operation] == ["not-made"]
        await ledger.undo("1")
        assert (made.state, await _replicas(kube, workload)) == ("failed", 1)
        assert "denied the request" in made.message

    await _goes_back(ledger, made, kube, workload)
