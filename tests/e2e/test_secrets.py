"""A secret of an experiment is in no file, no output and no object of the cluster; a recovery asks for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gameday.ledger.store import NAMESPACE, unpack
from gameday.platform.kube import Kube
from gameday.platform.resources import CONFIG_MAPS
from tests.e2e.experiments import CORDON, write
from tests.support.program import Program
from tests.support.snapshot import Snapshot

SECRET = 'cor"rect-horse/battery'
VARIABLES = {"api": {"secretFrom": {"env": "ACME_API"}}, "plain_token": "none"}
RADIUS = {"nodes": 2, "gpus": 32, "others": ["call"]}


def experiment(folder: Path) -> Path:
    """An activity that is given the secret and prints it, and its undo, which needs it too."""
    undone = folder / "undone"
    script = f'import sys, pathlib; pathlib.Path("{undone}").write_text(sys.argv[1])'
    arguments = {"call": "{{ api }}", "path": "/nowhere/{{ api }}", "plain": "{{ plain_token }}"}
    activity = {
        "type": "action",
        "name": "call",
        "provider": {"type": "process", "path": "echo", "arguments": ["-n", json.dumps(arguments)]},
        "undo": {
            "type": "action",
            "name": "take it back",
            "provider": {"type": "process", "path": "python3", "arguments": ["-c", script, "{{ api }}"]},
        },
    }
    method = [{"chaostoolkit": activity}, {**CORDON, "for": "60s"}]
    return write(folder, method=[{"parallel": method}], variables=VARIABLES, blastRadius=RADIUS)


async def test_a_secret_stays_one(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = experiment(tmp_path)
    unset = await asyncio.to_thread(gameday.run, file)
    assert unset.code == 2
    assert "the environment variable ACME_API is not set" in unset.output
    assert (await asyncio.to_thread(gameday, "validate", file)).code == 0

    plain = "hunter2-hunter2"
    options = ("--set", f"plain_token={plain}")
    with gameday.started(file, *options, env={"ACME_API": SECRET}) as run:
        await asyncio.to_thread(run.fault_is, "in")
        records = await kube.list(CONFIG_MAPS, NAMESPACE)
        name = run.kill()
        folder, output = run.folder, run.output.read_text()
    told = output + json.dumps([unpack(r) for r in records if "binaryData" in r]) + str(records)
    told += "".join(p.read_text() for p in folder.rglob("*") if p.is_file())
    assert "take it back" in told
    _holds_none(told, plain)
    assert "a secret on the command line (--set plain_token) is seen by all" in output

    without = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert without.code == 5, without.output
    assert "set $GAMEDAY_SECRET_API, and recover again" in without.output
    with_it = {"GAMEDAY_SECRET_API": SECRET}
    recovered = await asyncio.to_thread(gameday, "recover", "--run", name, "--force", env=with_it)
    assert recovered.code == 0, recovered.output
    assert (tmp_path / "undone").read_text() == SECRET
    report = await asyncio.to_thread(gameday, "report", name, "--reports", gameday.reports)
    _holds_none(report.output + "".join(p.read_text() for p in folder.rglob("*") if p.is_file()), plain)


def _holds_none(text: str, plain: str) -> None:
    assert not [s for s in (SECRET, json.dumps(SECRET)[1:-1], plain) if s in text]
