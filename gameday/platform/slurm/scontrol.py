"""scontrol as a way to Slurm: here, or in a pod of Slurm on Kubernetes (Slinky, SUNK).

Since Slurm 23.02 scontrol writes JSON; an older one refuses the option, and its lines are read instead.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from gameday.experiment.text import shorten
from gameday.platform import child, fence
from gameday.platform.slurm import decode
from gameday.platform.slurm.model import Job, Node, Partition
from gameday.platform.slurm.transport import LONGEST, Change, SlurmError, Via, failure

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

TIMEOUT = 30.0  # seconds; scontrol itself gives up after the cluster's MessageTimeout, usually 10
LARGEST = 256 << 20  # bytes of an answer; 100,000 jobs in JSON are some 200 MB
T = TypeVar("T")
Run = Callable[[list[str]], Awaitable[tuple[int, str, str]]]  # arguments → exit code, stdout, stderr


class Scontrol:
    """Runs `scontrol` by `run`, which says where."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._json: bool | None = None  # whether it writes JSON; None: not tried yet

    async def nodes(self) -> list[Node]:
        return await self._show("nodes", decode.node, decode.node_line)

    async def jobs(self) -> list[Job]:
        return await self._show("jobs", decode.job, decode.job_line)

    async def partitions(self) -> list[Partition]:
        return await self._show("partitions", decode.partition, decode.partition_line)

    async def setting(self, name: str) -> str:
        text = await self._said("read Slurm's configuration", ["show", "config"])
        settings = (line.partition("=")[::2] for line in text.splitlines())
        return next((value.strip() for key, value in settings if key.strip() == name), "")

    async def cannot(self, change: Change) -> str:
        return ""

    async def update_node(self, name: str, state: str, reason: str) -> None:
        words = ["update", f"nodename={name}", f"state={state.lower()}"]
        await self._said(
            f"set Slurm node {name} to {state}", words + ([f"reason={reason}"] if reason else [])
        )

    async def update_partition(self, name: str, state: str) -> None:
        words = ["update", f"partitionname={name}", f"state={state.lower()}"]
        await self._said(f"set partition {name} to {state}", words)

    async def requeue(self, job: int) -> None:
        await self._said(f"requeue job {job}", ["requeue", str(job)])

    async def _show(
        self, what: str, from_json: Callable[[dict[str, Any]], T], from_line: Callable[[str], T]
    ) -> list[T]:
        doing = f"list Slurm's {what}"
        if self._json is not False:
            code, out, err = await self._run(["--json", "show", what])
            if code == 0:
                self._json = True
                try:
                    return [from_json(found) for found in json.loads(out)[what]]
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    why = shorten(repr(error), LONGEST)
                    raise SlurmError(f"cannot {doing}: scontrol's JSON is not as known ({why})") from error
            if self._json:
                raise failure(doing, err or out, code)
        # Whatever the refusal's words: an scontrol that gives no JSON (older, or without its serializer
        # plugin) gives text, and one that can't reach its controller gives neither.
        text = await self._said(doing, ["-o", "show", what])
        self._json = bool(self._json)
        try:
            return [from_line(line) for line in text.splitlines() if "=" in line]
        except (ValueError, KeyError, IndexError) as error:
            why = shorten(repr(error), LONGEST)
            raise SlurmError(f"cannot {doing}: scontrol's lines are not as known ({why})") from error

    async def _said(self, doing: str, arguments: list[str]) -> str:
        code, out, err = await self._run(arguments)
        if code != 0:
            raise failure(doing, err or out, code)
        return out


async def run_here(arguments: list[str]) -> tuple[int, str, str]:
    """scontrol on this machine, as the user who runs us. Raises SlurmError when there is none."""
    fence.check()
    try:
        ended = await child.run(["scontrol", *arguments], TIMEOUT, largest=LARGEST)
    except TimeoutError:
        raise failure("run scontrol", f"Unable to contact slurm controller within {TIMEOUT:g} s") from None
    except OSError as error:
        raise SlurmError(
            f"scontrol can't be run here ({error}): install Slurm's client, or use url"
        ) from error
    if ended.cut:
        raise failure("run scontrol", f"its answer is larger than {LARGEST >> 20} MiB")
    return ended.code, ended.out.decode(errors="replace"), ended.err.decode(errors="replace")


def in_pod(kube: Kube, via: Via) -> Run:
    """scontrol in the first Ready pod that the selector finds."""

    async def run(arguments: list[str]) -> tuple[int, str, str]:
        from gameday.platform.objects import Ref, is_ready
        from gameday.platform.resources import PODS

        pods = [p for p in await kube.list(PODS, via.namespace, labels=via.selector) if is_ready(p)]
        if not pods:
            raise SlurmError(
                f"no Ready pod in {via.namespace} matches {via.selector}: see spec.target.slurm.exec"
            )
        pod = min(pods, key=lambda p: str(p["metadata"]["name"]))
        ref = Ref("v1", "Pod", pod["metadata"]["name"], via.namespace)
        container = via.container or pod["spec"]["containers"][0]["name"]
        answer = await kube.exec(ref, container, ["scontrol", *arguments], timeout=TIMEOUT)
        return answer.code, answer.stdout, answer.stderr

    return run
