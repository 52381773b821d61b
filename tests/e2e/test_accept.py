"""A person takes over what a dead run left: the world stays, and nobody is kept from going on."""

from __future__ import annotations

import json
from pathlib import Path

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, write
from tests.support.polling import eventually
from tests.support.program import Program

NODE = Ref("v1", "Node", "gpu-0")


async def test_an_open_change_is_taken_over(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    step = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "2s"}
    file = write(tmp_path, method=[step | {"for": "60s"}])
    told = ("--reason", "gpu-0 goes to the workshop", "--reports", gameday.reports)
    with gameday.started(file) as run:
        run.fault_is("in")
        alive = gameday("recover", "--accept", f"{run.folder.name}/1", *told)
        name = run.kill()
    try:
        assert alive.code == 2, alive.output
        assert "alive" in alive.output
        assert f"{name}/1" in gameday("status", env={"COLUMNS": "40"}).output
        wrong = gameday("recover", "--accept", f"{name}/7", *told)
        assert (wrong.code, f"open are: {name}/1" in wrong.output) == (2, True), wrong.output
        assert gameday("recover", "--accept", f"{name}/1").code == 2  # a reason is wanted

        done = gameday("recover", "--accept", f"{name}/1", *told)
        assert done.code == 0, done.output
        assert (await kube.get(NODE))["spec"]["unschedulable"] is True
        assert "nothing is in force" in gameday("status").output
        kept = (await kube.get(Ref("v1", "ConfigMap", "gameday-accepted", "gameday")))["data"][f"{name}.1"]
        assert json.loads(kept)["why"] == "gpu-0 goes to the workshop"
        report = (gameday.reports / name / "report.md").read_text()
        assert "goes to the workshop" in report
        assert "a person answers for it" in report
        assert "accepted" in report
        log = (gameday.reports / name / "events.jsonl").read_text()
        numbers = [json.loads(line)["seq"] for line in log.splitlines()]
        assert numbers == sorted(set(numbers))

        again = gameday("recover", "--from", gameday.reports / name)
        assert again.code == 0, again.output
        assert (await kube.get(NODE))["spec"]["unschedulable"] is True  # a folder's ledger knows it, too
    finally:
        await kube.patch(NODE, {"spec": {"unschedulable": None}}, "merge")
    await eventually(lambda: kube.get(NODE), lambda node: not node["spec"].get("unschedulable"))
    assert gameday.run(write(tmp_path, method=[step])).verdict == "passed"


async def test_what_is_left_keeps_its_lock_alone(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    with gameday.started(write(tmp_path, method=[CORDON])) as run:
        run.fault_is("in")
        name = run.kill()
    done = gameday("recover", "--accept", f"{name}/1", "--reason", "mine")
    assert done.code == 0, done.output
    assert f"open still  {name}/2" in done.output
    locks = (await kube.get(Ref("v1", "ConfigMap", "gameday-locks", "gameday")))["data"][name]
    restored = gameday("recover", "--run", name)
    assert restored.code == 0, restored.output
    nodes = {n: (await kube.get(Ref("v1", "Node", n)))["spec"] for n in ("gpu-0", "gpu-1")}
    cordoned = [n for n, spec in nodes.items() if spec.get("unschedulable")]
    for node in cordoned:
        await kube.patch(Ref("v1", "Node", node), {"spec": {"unschedulable": None}}, "merge")
    assert len(cordoned) == 1
    (left,) = nodes.keys() - set(cordoned)
    assert json.loads(locks) == [["Node", left]]
