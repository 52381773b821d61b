"""Controls live in one process: its end, or a word of a control, ends the run; the undo waits for none."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from gameday.platform import controls
from gameday.platform.controls import Controls, Interrupted
from tests.support.polling import eventually

pytestmark = pytest.mark.fast

MODULE = """
import os, threading, time
from chaoslib.exit import exit_gracefully

def before_method_control(context, way='', **_):
    if way == "die":
        os._exit(3)
    if way == "hang":
        time.sleep(600)
    if way == "later":
        threading.Timer(0.2, exit_gracefully).start()
"""


async def started(folder: Path, way: str, heard: list[str]) -> Controls:
    (folder / "ending.py").write_text(MODULE)
    provider = {"type": "python", "module": "ending", "arguments": {"way": way}}
    document: dict[str, Any] = {"title": "t", "controls": [{"name": "c", "provider": provider}]}
    made = Controls(document, heard.append)
    await made.start({"PYTHONPATH": str(folder)})
    return made


@pytest.mark.parametrize(("way", "words"), [("die", "ended"), ("hang", "did not answer within 1 s")])
async def test_a_control_that_takes_its_process_along_ends_the_run(
    way: str, words: str, tmp_path: Path
) -> None:
    heard: list[str] = []
    made = await started(tmp_path, way, heard)
    made.patience = 1.0 if way == "hang" else made.patience
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "HURRY", 0.5)
        with pytest.raises(Interrupted, match=words):
            await made.apply("method", "before")
    assert len(heard) == 1
    await made.end()


async def test_a_control_may_end_the_experiment_at_any_time(tmp_path: Path) -> None:
    heard: list[str] = []
    made = await started(tmp_path, "later", heard)
    await made.apply("method", "before")

    async def told() -> list[str]:
        return heard

    assert "a control ended the experiment" in (await eventually(told, bool))[0]
    await made.end()


async def test_the_undo_waits_for_no_control(tmp_path: Path) -> None:
    heard: list[str] = []
    made = await started(tmp_path, "hang", heard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "HURRY", 0.5)
        made.patience = controls.HURRY
        async with asyncio.timeout(20):
            await made.apply("method", "before")
            assert await made.around({"name": "a", "provider": {}}, _answer) == 7
    assert heard == []
    await made.end()


async def _answer(_: dict[str, Any]) -> int:
    return 7


async def test_a_run_that_ends_well_is_not_interrupted(tmp_path: Path) -> None:
    heard: list[str] = []
    made = await started(tmp_path, "none", heard)
    process = made._process
    assert process is not None
    await made.apply("method", "before")
    await made.end()

    async def gone() -> bool:
        try:
            os.kill(process.pid, 0)
        except ProcessLookupError:
            return True
        return process.returncode is not None

    await eventually(gone, bool)
    assert heard == []


async def test_the_undo_ends_a_control_that_was_asked_before_it(tmp_path: Path) -> None:
    heard: list[str] = []
    made = await started(tmp_path, "hang", heard)
    before = asyncio.create_task(made.apply("method", "before"))

    async def asked() -> float:
        return made._taking

    await eventually(asked, bool)
    made.patience = controls.HURRY
    provider = {"type": "process", "path": "true"}
    ran: list[dict[str, Any]] = []

    async def run(activity: dict[str, Any]) -> None:
        ran.append(activity)

    async with asyncio.timeout(controls.HURRY / 2):
        await made.around({"type": "action", "name": "put it back", "provider": provider}, run)
        await before
    assert [a["provider"] for a in ran] == [provider]
    await made.end()


async def test_what_undoes_is_what_the_record_holds(tmp_path: Path) -> None:
    """Also where the method has an action of the same name, which a control looked at before."""
    (tmp_path / "ending.py").write_text(MODULE)
    broken, back = ({"type": "process", "path": "echo", "arguments": [word]} for word in ("0", "3"))
    document: dict[str, Any] = {
        "title": "t",
        "controls": [{"name": "c", "provider": {"type": "python", "module": "ending"}}],
        "method": [{"type": "action", "name": "scale web", "provider": broken}],
        "rollbacks": [{"type": "action", "name": "scale web", "provider": back}],
    }
    made = Controls(document, lambda _: None)
    await made.start({"PYTHONPATH": str(tmp_path)})
    ran: list[dict[str, Any]] = []

    async def run(activity: dict[str, Any]) -> None:
        ran.append(activity["provider"])

    await made.around(document["method"][0], run)
    await made.around(document["rollbacks"][0], run)
    made.patience = controls.HURRY
    await made.around(document["rollbacks"][0], run)
    assert ran == [broken, back, back]
    await made.end()
