"""Names that others gave objects in our namespace: no run's name makes them a run's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gameday.ledger.janitor import attempt
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.lease import RunLease, ref_of
from gameday.ledger.recovery import How, forget, recover
from gameday.ledger.survey import survey
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.unruly import Unruly, connect

pytestmark = pytest.mark.fast


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Kube]:
    async with await connect(server) as client:
        await ensure_namespace(client)
        yield client


def named(kind: str, name: str, data: dict[str, str], api_version: str = "v1") -> Object:
    meta = {"name": name, "namespace": "gameday"}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, "data": data}


@pytest.mark.parametrize("name", ["lever", "locks", "accepted", "policy"])
async def test_the_controls_own_objects_are_no_runs_records(name: str, kube: Kube) -> None:
    """Neither written into nor removed, whatever run one asks to recover or to forget."""
    made = await kube.create(named("ConfigMap", f"gameday-{name}", {"halt": '{"reason": "incident"}'}))
    for restoring in (recover(kube, name, lambda _: None), forget(kube, name)):
        with pytest.raises(PlatformError, match=f"ConfigMap gameday/gameday-{name} is not of run {name}"):
            await restoring
    assert await kube.get(Ref.of(made)) == made
    assert await kube.find(ref_of(name)) is None
    assert (await survey(kube)).runs == ()


async def test_no_lease_makes_the_janitor_remove_another_secret(kube: Kube) -> None:
    """Who may write Leases, but no Secrets, names a run after one: it goes, the Secret stays."""
    made = await kube.create(named("Secret", "gameday-slack", {"key": "a2V5", "token": "eA=="}))
    lease = RunLease(kube, "slack")
    await lease.acquire()
    await lease.release(restored=False)
    done = await attempt(kube, "slack", How())
    assert (done.failure, done.left) == ("", False)
    assert await kube.get(Ref.of(made)) == made


async def test_no_lease_of_somebody_else_is_taken(kube: Kube) -> None:
    meta = {"name": "gameday-theirs", "namespace": "gameday"}
    ref = ref_of("theirs")
    made = await kube.create(
        {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": meta,
            "spec": {"leaseDurationSeconds": 1},
        }
    )
    with pytest.raises(PlatformError, match="is not of run theirs"):
        await recover(kube, "theirs", lambda _: None, how=How(force=True))
    assert await kube.get(ref) == made
