"""Chaos Toolkit actions as faults: run, cut off, undone by another activity, also from the record alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from gameday.events import Warn
from gameday.extend import FaultError, FaultPlan, PlanError
from gameday.faults.chaostoolkit import ChaosToolkit, ChaosToolkitSpec
from gameday.ledger.activity import Activity
from gameday.ledger.operations import from_data
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from tests.faults.chaos import Step, step_of, taken_over
from tests.support.kubeconfigs import PROD, beside_prod, kubectl
from tests.support.platforms import Platform
from tests.support.polling import eventually

FAULT = ChaosToolkit()


def touch(path: Path, **more: Any) -> Object:
    provider = {"type": "process", "path": "touch", "arguments": [str(path)]}
    return {"type": "action", "name": f"touch {path.name}", "provider": provider, **more}


def remove(path: Path, **more: Any) -> Object:
    provider = {"type": "python", "module": "os", "func": "unlink", "arguments": {"path": str(path)}}
    return {"type": "action", "name": f"remove {path.name}", "provider": provider, **more}


def note(path: Path, word: str) -> Object:
    provider = {"type": "process", "path": "sh", "arguments": ["-c", f"echo {word} >> {path}"]}
    return {"type": "action", "name": f"note {word}", "provider": provider}


async def planned(step: Step, spec: Object) -> FaultPlan[ChaosToolkitSpec]:
    return await FAULT.plan(ChaosToolkitSpec.model_validate(spec), step.world)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an activity asked for before it ended badly lands soon, or not at all."""
    monkeypatch.setattr(Activity, "late", 1.0)


async def test_an_action_runs_and_is_undone(kube: Kube, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, touch(mark, undo=remove(mark)))
        assert plan.changes == ("run touch, undone by os.unlink (which may run more than once)",)
        assert not plan.irreversible
        assert not mark.exists()
        evidence = await step.inject(FAULT, plan)
        assert evidence.facts[0].startswith("touch mark returned {")
        assert step.here.injected.of("activity")[0].learned["result"]["status"] == 0
        assert mark.exists()
        assert await step.undo() == ["undone"]
        assert not mark.exists()


async def test_without_an_undo_it_is_irreversible(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, touch(tmp_path / "mark"))
        assert plan.irreversible == ("nothing undoes touch mark: name its `undo` if there is one",)
        await step.inject(FAULT, plan)
        assert await step.undo() == ["irreversible"]
        assert [a.state for a in await step.ledger.ledger.audit()] == ["irreversible"]


async def test_a_wrong_activity_is_refused_before_anything_is_touched(kube: Kube, tmp_path: Path) -> None:
    nowhere = {"type": "python", "module": "chaosnone.actions", "func": "x"}
    async with step_of(kube, tmp_path) as step:
        with pytest.raises(PlanError, match="could not find Python module"):
            await planned(step, touch(tmp_path / "mark", undo={"name": "back", "provider": nowhere}))


async def test_a_failing_action_fails_the_step_and_is_undone_all_the_same(
    kube: Kube, tmp_path: Path, soon: None
) -> None:
    """It may have done half of its work."""
    mark = tmp_path / "mark"
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, remove(tmp_path / "nothing", undo=touch(mark)))
        with pytest.raises(FaultError, match=r"remove nothing' failed: FileNotFoundError"):
            await step.inject(FAULT, plan)
        assert await step.undo() == ["undone"]
        assert mark.exists()


async def test_a_failure_can_be_ignored_as_chaos_run_does(kube: Kube, tmp_path: Path) -> None:
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, remove(tmp_path / "nothing", ignoreFailure=True))
        evidence = await step.inject(FAULT, plan)
        assert "FileNotFoundError" in evidence.facts[0]
        assert [e.source for e in step.told if isinstance(e, Warn)] == ["remove nothing"]


async def test_an_abort_cuts_a_hanging_action_off(kube: Kube, tmp_path: Path, soon: None) -> None:
    mark = tmp_path / "mark"
    provider = {"type": "process", "path": "sh", "arguments": ["-c", f"touch {mark}; sleep 600"]}
    async with step_of(kube, tmp_path) as step:
        twice = {"type": "process", "path": "rm", "arguments": ["-f", str(mark)]}  # so often is it undone
        undo = {"name": "wipe", "provider": twice}
        plan = await planned(step, {"name": "hang", "provider": provider, "undo": undo})
        injection = asyncio.create_task(FAULT.inject(plan, step.here))
        await eventually(lambda: asyncio.to_thread(mark.exists))
        injection.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await injection
        assert await step.undo() == ["undone"]
        assert not mark.exists()


async def test_a_failed_undo_is_left_and_told(kube: Kube, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, touch(mark, undo=remove(tmp_path / "nothing")))
        await step.inject(FAULT, plan)
        assert await step.undo() == ["failed"]
        [entry] = step.ledger.entries
        entry.operation = from_data(entry.operation.to_data())  # the audit goes by the ledger alone
        audits = await step.ledger.ledger.audit()
        assert [(a.state, "FileNotFoundError" in a.message) for a in audits] == [("left", True)]
        (tmp_path / "nothing").touch()
        assert await step.undo() == ["undone"]  # a failed one is tried again


async def test_rollbacks_wait_for_the_end_of_the_run_and_keep_their_order(kube: Kube, tmp_path: Path) -> None:
    log = tmp_path / "log"
    rollbacks = [note(log, "first"), note(log, "second")]
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, note(log, "action") | {"rollbacks": rollbacks})
        await step.inject(FAULT, plan)
        await step.ledger.ledger.undo("1")
        assert log.read_text().split() == ["action"]
        await step.undo()
        assert log.read_text().split() == ["action", "first", "second"]


async def test_another_machine_undoes_it_from_the_record(
    kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the values that the environment had then, and without secrets that the file itself held."""
    mark = tmp_path / "mark"
    undo = {"name": "back", "provider": {"type": "process", "path": "rm", "arguments": ["${mark}"]}}
    undo["configuration"] = {"mark": {"type": "env", "key": "MARK"}}
    secrets = {"token": {"value": "hunter2"}}
    monkeypatch.setenv("MARK", str(mark))
    async with step_of(kube, tmp_path) as step:
        await step.inject(FAULT, await planned(step, touch(mark, undo=undo, secrets=secrets)))
        monkeypatch.setenv("MARK", str(tmp_path / "another"))
        elsewhere = await taken_over(step)
        assert "hunter2" not in str([e.record() for e in elsewhere.entries])
        assert [e.state for e in await elsewhere.undo()] == ["undone"]
        assert not mark.exists()
        await elsewhere.close(restored=True)
        mark.touch()  # for the undo of the first machine, which knows nothing of the second


async def test_a_secret_that_was_not_recorded_is_asked_for(kube: Kube, tmp_path: Path) -> None:
    undo = {"name": "back", "provider": {"type": "process", "path": "true", "secrets": ["token"]}}
    async with step_of(kube, tmp_path) as step:
        spec = touch(tmp_path / "mark", undo=undo, secrets={"token": {"value": "hunter2"}})
        await step.inject(FAULT, await planned(step, spec))
        elsewhere = await taken_over(step)
        (entry,) = await elsewhere.undo()
        assert entry.state == "failed"
        assert "back needs a secret that the record does not hold" in entry.message
        await elsewhere.close(restored=True)


async def test_a_probe_leaves_no_trace_in_the_ledger(kube: Kube, tmp_path: Path) -> None:
    (folder := tmp_path / "looked-at").mkdir()
    (folder / "seen-by-the-probe").touch()
    provider = {"type": "python", "module": "os", "func": "listdir", "arguments": {"path": str(folder)}}
    async with step_of(kube, tmp_path) as step:
        plan = await planned(step, {"type": "probe", "name": "look", "provider": provider})
        evidence = await step.inject(FAULT, plan)
        assert "seen-by-the-probe" in evidence.facts[0]
        assert step.ledger.ledger.entries == []


@pytest.mark.parametrize("when", ["the current context is another one", "the file is written to"])
async def test_it_asks_the_cluster_of_the_run_and_no_other(
    when: str, platform: Platform, tmp_path: Path
) -> None:
    """Also its undo; and what an activity does to the kubeconfig is nothing to the next."""
    program, seen = kubectl(), tmp_path / "seen"
    look = (
        f"echo $KUBERNETES_CONTEXT >> {seen}; {program} config view --raw -o jsonpath={{..server}} >> {seen}"
    )
    shell = {"type": "process", "path": "sh"}
    spec = {
        "name": "where",
        "provider": shell | {"arguments": ["-c", f"{look}; {program} config set-cluster x --server={PROD}"]},
        "undo": {"name": "there", "provider": shell | {"arguments": ["-c", look]}},
    }
    several = beside_prod(platform.kubeconfig, tmp_path)
    async with await Kube.connect(several, platform.context) as kube, step_of(kube, tmp_path) as step:
        plan = await planned(step, spec)
        if when == "the file is written to":
            several.write_text(several.read_text().replace(platform.api_url, PROD))
        await step.inject(FAULT, plan)
        await step.ledger.ledger.undo()
    assert seen.read_text().replace(platform.api_url, f"{platform.api_url}\n").split() == [
        *(platform.context, platform.api_url) * 2
    ]


def test_the_example_is_valid() -> None:
    ChaosToolkitSpec.model_validate(yaml.safe_load(ChaosToolkit.example)["chaostoolkit"])
