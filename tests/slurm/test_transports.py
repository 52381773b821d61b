"""slurmrestd and scontrol of a real Slurm say the same, change the same, and fail in words that help."""

from __future__ import annotations

import pytest

from gameday.platform.errors import ConfigError, PlatformError, Unreachable
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import SlurmError, Via
from tests.support.polling import eventually
from tests.support.slurm import NODES, RealSlurm

NO_KUBE = None  # these ways need no cluster


def of(via: Via) -> Slurm:
    return Slurm.of(via, NO_KUBE)  # type: ignore[arg-type]


@pytest.fixture
def rest(slurm: RealSlurm) -> Slurm:
    return of(Via(url=slurm.url))


@pytest.fixture
def scontrol(slurm: RealSlurm) -> Slurm:
    return Slurm(Via(local=True), of(Via(url=slurm.url, local=True))._transports[1:])


async def test_both_ways_see_the_same(slurm: RealSlurm, rest: Slurm, scontrol: Slurm) -> None:
    running = slurm.submit("trainer", "--nodes=2")
    waiting = slurm.submit("too-large", "--nodes=4")
    slurm.until_running(running)
    for client in (rest, scontrol):
        nodes = {n.name: n.word for n in await client.nodes()}
        assert nodes.keys() == set(NODES)
        jobs = {j.number: j for j in await client.jobs()}
        assert (jobs[running].state, jobs[running].name, jobs[running].restarts) == ("RUNNING", "trainer", 0)
        assert {n for n, word in nodes.items() if word == "allocated"} == set(jobs[running].nodes)
        assert (jobs[waiting].state, jobs[waiting].nodes) == ("PENDING", ())
        assert jobs[waiting].reason in ("Resources", "Priority")
        partition = await client.partition("gpu")
        assert (partition.state, set(partition.nodes)) == ("UP", set(NODES))


async def test_a_unix_socket_will_do(slurm: RealSlurm, rest: Slurm) -> None:
    nodes = await of(Via(url=f"unix://{slurm.socket}")).nodes()
    assert {n.name for n in nodes} == {n.name for n in await rest.nodes()} == set(NODES)


async def test_a_drain_and_back(slurm: RealSlurm, rest: Slurm, scontrol: Slurm) -> None:
    """By scontrol with every version; by slurmrestd with those that can."""
    for client in (rest, scontrol):
        if why := await client.cannot("node"):
            assert "v0.0.38, which can't update nodes" in why
            with pytest.raises(SlurmError, match="can't update nodes"):
                await client.update_node("gpu-0", "DRAIN", "test")
            continue
        await client.update_node("gpu-0", "DRAIN", "gameday r1: a=b, and so on")
        for reader in (rest, scontrol):
            node = await reader.node("gpu-0")
            assert (node.word, node.reason) == ("drained", "gameday r1: a=b, and so on")
        await client.update_node("gpu-0", "RESUME")
        assert not (await client.node("gpu-0")).out


async def test_partitions_and_requeue(slurm: RealSlurm, scontrol: Slurm, rest: Slurm) -> None:
    job = slurm.submit("trainer")
    slurm.until_running(job)
    await scontrol.requeue(job)
    await scontrol.update_partition("gpu", "DOWN")
    try:
        assert (await rest.partition("gpu")).state == "DOWN"

        async def requeued() -> tuple[str, int]:
            return next((j.state, j.restarts) for j in await rest.jobs() if j.number == job)

        await eventually(requeued, lambda found: found == ("PENDING", 1))
    finally:
        await scontrol.update_partition("gpu", "UP")
    for change in ("partition", "requeue"):
        assert "can't" in await rest.cannot(change)


async def test_what_is_not_there(scontrol: Slurm) -> None:
    with pytest.raises(SlurmError, match=r"Slurm node nope .*Invalid node name"):
        await scontrol.update_node("nope", "DRAIN", "test")
    with pytest.raises(SlurmError, match=r"partition nope .*Invalid partition name"):
        await scontrol.update_partition("nope", "DOWN")
    with pytest.raises(SlurmError, match=r"job 999999.*Invalid job id"):
        await scontrol.requeue(999999)
    with pytest.raises(SlurmError, match="no partition nope in Slurm, only gpu"):
        await scontrol.partition("nope")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "no token"),
        ("nonsense", "accept the token|[Aa]uthentication"),
        ("e30.eyJleHAiOjEsInN1biI6InJvb3QifQ.x", "expired"),
    ],
    ids=["none", "wrong", "expired"],
)
async def test_a_token_that_is_no_good(
    token: str, said: str, slurm: RealSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JWT", token)
    client = Slurm(Via(), [type(of(Via(url=slurm.url))._transports[0])(slurm.url, "")])  # type: ignore[call-arg]
    with pytest.raises(PlatformError, match=said) as caught:
        await client.nodes()
    assert "SLURM_JWT" in str(caught.value)


async def test_a_controller_that_is_away_is_not_a_no(slurm: RealSlurm, rest: Slurm, scontrol: Slurm) -> None:
    slurm.stop("slurmctld")
    try:
        for client in (rest, scontrol):
            with pytest.raises(Unreachable, match="slurmctld does not answer"):
                await client.nodes()
    finally:
        slurm.start("slurmctld")

    async def idle() -> bool:
        try:
            return all(n.word == "idle" for n in await scontrol.nodes())
        except PlatformError:
            return False

    await eventually(idle, within=60)


async def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"slurmrestd at http://127.0.0.1:1 does not answer"):
        await _with_token("http://127.0.0.1:1")


async def test_a_socket_that_is_not_there() -> None:
    with pytest.raises(Unreachable, match=r"slurmrestd at unix:///nowhere/slurm.sock does not answer"):
        await _with_token("unix:///nowhere/slurm.sock")


@pytest.mark.parametrize(
    "url", ["slurm:6820", "ftp://slurm", "http://root:secret@slurm:6820", "http://root:se/cret@slurm"]
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(Via(url=url))
    assert "secret" not in str(caught.value)


async def _with_token(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JWT", "e30.e30.x")
        await of(Via(url=url)).nodes()
