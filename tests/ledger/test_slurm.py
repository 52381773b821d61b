"""What a run did in Slurm goes back to how it was before the run, and what an admin did meanwhile stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Refused
from gameday.ledger.slurm import BackInService, HoldPartition, OutOfService, Requeue
from gameday.ledger.store import ensure_namespace
from gameday.platform.kube import Kube
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import Via
from tests.support.ledgers import unguarded
from tests.support.platforms import Platform
from tests.support.polling import eventually

RUN = "slurm-test"
NODE = "gpu-7"


@pytest.fixture
def via(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Via:
    monkeypatch.setenv("SLURM_JWT", platform.slurm_token)
    return Via(url=platform.slurm_url)


@pytest.fixture
async def ledger(kube: Kube, tmp_path: Path) -> AsyncIterator[Ledger]:
    await ensure_namespace(kube)
    made = unguarded(kube, RUN, tmp_path, {"experiment": "test"}, lambda _: None)
    yield made
    await made.undo()
    await made.close(restored=True)


@pytest.mark.parametrize("order", [("1.1", "1.2"), ("1.2", "1.1")])
async def test_overlapping_changes_of_a_partition_end_as_before(
    order: tuple[str, str], kube: Kube, ledger: Ledger, via: Via
) -> None:
    slurm = Slurm.of(via, kube)
    name = (await slurm.partitions())[0].name
    before = (await slurm.partition(name)).state
    await ledger.step("1.1").perform([HoldPartition(via, name, "DRAIN", before)])
    await ledger.step("1.2").perform([HoldPartition(via, name, "INACTIVE", "DRAIN")])
    await ledger.undo(order[0])
    left = (await slurm.partition(name)).state
    assert left == ("INACTIVE" if order[0] == "1.1" else "DRAIN")
    await ledger.undo(order[1])
    assert (await slurm.partition(name)).state == before
    assert {a.state for a in await ledger.audit()} == {"restored"}


async def test_a_node_that_an_admin_repaired_is_not_drained_again(
    kube: Kube, ledger: Ledger, via: Via
) -> None:
    """Our own resume is refused, since the node is in service by now."""
    slurm = Slurm.of(via, kube)
    await slurm.update_node(NODE, "DRAIN", "bad HCA")
    try:
        entries = await ledger.intend("1", [BackInService(via, NODE, "DRAIN", "bad HCA")])
        await slurm.update_node(NODE, "RESUME")  # it is repaired
        with pytest.raises(Refused, match="when it was planned"):
            await ledger.make(entries[0])
        await ledger.undo()
        assert not (await slurm.node(NODE)).out
        assert await ledger.audit() == []
    finally:
        if (await slurm.node(NODE)).out:
            await slurm.update_node(NODE, "RESUME")


async def test_a_node_that_is_both_drained_and_resumed_is_refused(
    kube: Kube, ledger: Ledger, via: Via
) -> None:
    """Slurm keeps one reason: undone in the order of the steps, the node would end in service."""
    slurm = Slurm.of(via, kube)
    await slurm.update_node(NODE, "DRAIN", "bad HCA")
    try:
        await ledger.step("1").perform([BackInService(via, NODE, "DRAIN", "bad HCA")])
        word = (await slurm.node(NODE)).word
        with pytest.raises(Refused, match="step 1 changed it already"):
            await ledger.step("2").perform([OutOfService(via, NODE, "DRAIN", RUN, "test", word)])
        await ledger.undo()
        assert (await slurm.node(NODE)).reason == "bad HCA"
    finally:
        await slurm.update_node(NODE, "RESUME")


async def test_only_a_job_that_was_requeued_is_called_so(kube: Kube, ledger: Ledger, via: Via) -> None:
    slurm = Slurm.of(via, kube)
    job = next(j for j in await slurm.jobs() if j.state == "RUNNING")
    requeue = Requeue(via, str(job), job.number, job.restarts)
    (entry,) = await ledger.intend("1", [requeue])
    assert not await requeue.has_landed(kube)
    await ledger.undo()
    assert (entry.state, "it was not requeued: RUNNING" in entry.message) == ("undone", True)
    assert [a.state for a in await ledger.audit()] == ["restored"]
    await ledger.step("2").perform([requeue])
    try:
        (entry,) = await ledger.undo("2")
        assert entry.state == "irreversible"
    finally:
        await eventually(
            slurm.jobs, lambda js: any((j.number, j.state) == (job.number, "RUNNING") for j in js), within=60
        )
