"""Evidence on both platforms: whole, bounded, masked, and never in a run's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gameday.events import Event, Evidence, Warn
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.resources import PODS
from gameday.platform.world import Victim, World
from gameday.run.evidence import LINES, MOST_TARGETS, collect
from tests.e2e.experiments import write
from tests.platform.arrange import pod, running, unique
from tests.run.test_observe import shout
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    name = unique("evidence")
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", name)))
    yield name
    await kube.delete(ref)


async def keep(kube: Kube, folder: Path, *victims: Victim) -> tuple[list[Any], list[Event]]:
    """What was kept, read again, and what was told."""
    told: list[Event] = []
    await collect(World(kube), victims, folder / "evidence", told.append)
    kept = [yaml.safe_load((folder / e.path).read_text()) for e in told if isinstance(e, Evidence)]
    return kept, told


async def test_of_a_pod_its_owners_conditions_events_and_logs(kube: Kube, tmp_path: Path) -> None:
    async def serving() -> list[Any]:
        return [p for p in await kube.list(PODS, "inference") if p["status"].get("phase") == "Running"]

    found = (await eventually(serving))[0]
    ref = Ref.of(found)
    about = {"kind": "Pod", "namespace": "inference", "name": ref.name}
    await shout(kube, "inference", about, "BackOff")
    (kept,), told = await keep(kube, tmp_path, Victim(ref, "pod"))
    assert kept["target"] == f"Pod inference/{ref.name}"
    assert [o["object"].split("/")[0] for o in kept["owners"]] == [
        "ReplicaSet inference",
        "Deployment inference",
    ]
    assert {c["type"] for c in kept["conditions"]} >= {"Ready"}
    assert kept["phase"] == "Running"
    assert kept["node"] == found["spec"]["nodeName"]
    assert "BackOff" in {e["reason"] for e in kept["events"]}
    assert [log["container"] for log in kept["logs"]] == [c["name"] for c in found["spec"]["containers"]]
    (event,) = told
    assert isinstance(event, Evidence)
    assert event.object == str(ref)
    assert event.path.startswith("evidence/pod-inference-")


async def test_of_a_workload_the_logs_of_some_of_its_pods(kube: Kube, tmp_path: Path) -> None:
    ref = Ref("apps/v1", "Deployment", "inference", "inference")
    (kept,), _ = await keep(kube, tmp_path, Victim(ref, "workload"))
    assert {c["type"] for c in kept["conditions"]} >= {"Available"}
    assert len({log["pod"] for log in kept["logs"]}) == 3


async def test_of_what_is_gone_its_events(kube: Kube, namespace: str, tmp_path: Path) -> None:
    ref = Ref("v1", "Pod", "gone", namespace)
    await shout(kube, namespace, {"kind": "Pod", "namespace": namespace, "name": "gone"}, "Evicted")
    (kept,), _ = await keep(kube, tmp_path, Victim(ref, "pod"))
    assert kept["gone"] is True
    assert [e["reason"] for e in kept["events"]] == ["Evicted"]


async def test_secrets_are_masked(
    platform: Platform, namespace: str, tmp_path: Path, api_proxy: ApiProxy
) -> None:
    async with await Kube.connect(platform.kubeconfig) as kube:
        ref = await running(kube, pod(namespace))
        about = {"kind": "Pod", "namespace": namespace, "name": ref.name}
        await shout(kube, namespace, about, "token=abcdefgh12345678")
        status = {"conditions": [{"type": "Ready", "status": "False", "message": "password: hunter2hunter2"}]}
        await kube.patch(ref, {"status": status}, "merge", subresource="status")
        await keep(kube, tmp_path, Victim(ref, "pod"))
    (file,) = (tmp_path / "evidence").iterdir()
    assert "hunter2" not in file.read_text()
    assert "abcdefgh" not in file.read_text()
    assert "***" in file.read_text()


async def test_nothing_that_happens_stops_it(
    platform: Platform, namespace: str, tmp_path: Path, api_proxy: ApiProxy
) -> None:
    async with await Kube.connect(platform.kubeconfig) as kube:
        refs = [await running(kube, pod(namespace)) for _ in range(2)]
    api_proxy.fail("GET", rf"pods/{refs[0].name}$", 403, message="not yours", times=9)
    api_proxy.fail("GET", rf"pods/{refs[1].name}/log", 500, message="no kubelet", times=99)
    async with await Kube.connect(api_proxy.kubeconfig) as ours:
        ours.patience = 0
        (kept,), told = await keep(ours, tmp_path, *(Victim(ref, "pod") for ref in refs))
        assert kept["target"] == str(refs[1])
        assert "no kubelet" in kept["logs"][0]["missing"]
        (warning,) = [e for e in told if isinstance(e, Warn)]
        assert f"nothing is kept of {refs[0]}" in warning.message
        assert "not yours" in warning.message
        api_proxy.cut()
        _, told = await keep(ours, tmp_path / "again", *(Victim(ref, "pod") for ref in refs))
        assert len(told) == 2
        api_proxy.restore()


async def test_a_folder_that_cannot_be_written(kube: Kube, tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("in the way")
    ref = Ref("apps/v1", "Deployment", "inference", "inference")
    told: list[Event] = []
    await collect(World(kube), [Victim(ref, "workload")], tmp_path / "evidence", told.append)
    assert [type(e) for e in told] == [Warn]


async def test_bounds(kube: Kube, namespace: str, tmp_path: Path) -> None:
    victims = [Victim(Ref("v1", "Pod", f"p{n}", namespace), "pod") for n in range(MOST_TARGETS + 5)]
    kept, told = await keep(kube, tmp_path, *victims, *victims)
    assert len(kept) == MOST_TARGETS
    warned = [e.message for e in told if isinstance(e, Warn)]
    assert warned == ["evidence: kept afterwards for 50 of 55 targets"]


@pytest.mark.fast
def test_logs_are_made_readable() -> None:
    from gameday.run.evidence import _readable, _text

    colours = "\x1b[31mred\x1b[0m\tafter a tab  \n" + "x" * 5_000 + "\nbell\x07 and null\x00\n"
    shown = _readable(colours)
    assert " ".join(shown.splitlines()[0].split()) == "red after a tab"
    assert max(map(len, shown.splitlines())) == 1_000
    assert "bell and null" in shown
    assert len(_readable("line\n" * 1_000).splitlines()) == LINES
    text = _text({"logs": [{"text": shown}]})
    assert "text: |" in text
    assert yaml.safe_load(text) == {"logs": [{"text": shown}]}


async def test_logs_of_what_a_fault_ends_are_kept_before_it_goes(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    kill = {"podKill": {"selector": "app=inference", "namespace": "inference", "pick": 1, "grace": 0}}
    ended = await asyncio.to_thread(gameday.run, write(tmp_path, method=[kill]))
    assert ended.code == 0, ended.output
    assert ended.folder is not None
    (killed,) = [e["object"].rpartition("/")[2] for e in ended.of("change") if e["state"] == "made"]
    kept = yaml.safe_load((ended.folder / f"evidence/pod-inference-{killed}-before.yaml").read_text())
    assert kept["phase"] == "Running"
    assert {"pod": killed, "container": "server"}.items() <= kept["logs"][0].items()
    order = [e["type"] for e in ended.events]
    assert order.index("evidence") < order.index("change"), "kept after the pod was gone"
    after = yaml.safe_load((ended.folder / f"evidence/pod-inference-{killed}.yaml").read_text())
    assert after["gone"]
