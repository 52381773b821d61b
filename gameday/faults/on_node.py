"""What all faults that run on nodes have in common: their programs are checked, put in force, and read back.

A family says by `programs` what is to run where, from its plan's data; the rest is here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.node_report import Report
from gameday.ledger.store import NAMESPACE
from gameday.node.task import Task
from gameday.platform.complaints import warnings_about
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.experiment.model import NodeProgram as Options
    from gameday.ledger.ledger import StepLedger
    from gameday.platform.world import World

START_WITHIN = 120.0  # seconds from a pod's creation to its first words, with the image's download
TELL_AFTER = 3.0  # seconds after which one is told what is waited for
SPARE = 20.0  # seconds that a program waits beyond the hold: the undo should come from here, not from there
MANAGEMENT_HOLD = 120.0  # a node's management may be cut for less than this
HOPELESS = (  # why a container waits for ever, in the kubelet's words
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
    "CrashLoopBackOff",
)
RBAC = ("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io")


@dataclass(frozen=True)
class OnNode:
    """One action on one node, with its options as the action takes them.

    The option `allowManagement` says that the node may fall silent: its kubelet not answering any more then
    counts as the change being in force, and the program waits for the API server as long as it may run.
    """

    node: Ref
    action: str
    options: dict[str, Any]

    def to_data(self) -> dict[str, Any]:
        return {"node": self.node.to_data(), "action": self.action, "options": self.options}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> OnNode:
        return cls(Ref.from_data(data["node"]), data["action"], data["options"])


class NodeProgramFault(ABC):
    """A fault that is one program on each of its nodes; `plan` is the family's.

    `spare` is how many seconds beyond the hold its programs wait before they revert by themselves. `silences`
    says that a node's kubelet not answering is what is to be expected of it.
    """

    instant: ClassVar[bool] = False
    spare: ClassVar[float] = SPARE
    silences: ClassVar[bool] = False
    _running: tuple[NodeProgram, ...] = ()
    _warned: frozenset[str] = frozenset()

    @abstractmethod
    def programs(self, plan: FaultPlan) -> list[OnNode]:
        """What runs where; only from the plan's data, since a plan may come from a file."""

    async def inspect(self, plan: FaultPlan, world: World, ledger: StepLedger) -> list[str]:
        """Ask each node, by a program that changes nothing, what speaks against the fault."""
        checks = await self._operations(plan, world, "check")
        try:
            await ledger.perform(checks)
        except PlatformError as error:
            return [str(error)]
        found = await asyncio.gather(*(self._checked(c, world) for c in checks))
        return [problem for problems in found for problem in problems]

    async def _checked(self, program: NodeProgram, world: World) -> list[str]:
        try:
            report = await self._until_said(program, world, "checked")
        except (FaultError, PlatformError) as error:
            return [str(error)]
        if not report.events:
            return [f"{program.node}: the program ended without a word ({report.waiting})"]
        return [f"{program.node}: {p}" for p in report.events[-1].get("problems") or ()]

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        self._running = tuple(await self._operations(plan, world, "run"))
        await ledger.perform(self._running)
        done = await asyncio.gather(*(self._started(p, world) for p in self._running), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result

    async def _started(self, program: NodeProgram, world: World) -> None:
        """Wait until the program says that it is in force. Raises FaultError when it says otherwise."""
        _complain(program, await self._until_said(program, world, "in"))

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """What the programs last said; once they are undone, what the undo heard of them."""
        seen = await asyncio.gather(*(self._look(p, world) for p in self._running))
        states = {e.state for e in seen}
        facts = tuple(f for e in seen for f in e.facts)
        return Evidence(states.pop() if len(states) == 1 else "partial", facts)

    async def _look(self, program: NodeProgram, world: World) -> Evidence:
        if program.last is not None:
            self._warn(program, world)
            return _evidence(program, program.last)
        try:
            report = await program.report(world.kube)
        except ApiError as error:
            if error.status == 404:
                raise FaultError(f"{program.ref} is gone, and nobody heard its last words") from error
            raise
        if report.silent:
            fact = f"{program.node} does not answer: {report.silent}"
            return Evidence("in" if self._may_be_silent(program) else "partial", (fact,))
        if not report.events:
            return Evidence("partial", (f"{program.node}: {report.waiting or 'nothing said yet'}",))
        return _evidence(program, report.events[-1])

    def _warn(self, program: NodeProgram, world: World) -> None:
        """Say, once, that the fault was over before the run ended it."""
        from gameday.events import Warn

        if program.alone and program.node not in self._warned:
            self._warned = self._warned | {program.node}
            text = f"the program on {program.node} did not keep it in force to the end{program.alone}"
            world.emit(Warn(source="node program", message=text))

    # -- programs ------------------------------------------------------------------------------

    async def _operations(self, plan: FaultPlan, world: World, mode: str) -> list[NodeProgram]:
        nodes = {v.node or v.ref.name for v in plan.victims}  # those that are left of the plan's
        wanted = [p for p in self.programs(plan) if p.node.name in nodes]
        addresses = await asyncio.gather(*(_addresses(p.node, world) for p in wanted))
        made = zip(wanted, addresses, strict=True)
        return [_operation(p, a, world, mode, self.spare) for p, a in made]

    def _may_be_silent(self, program: NodeProgram) -> bool:
        return self.silences or bool(program.task.options.get("allowManagement"))

    async def _until_said(self, program: NodeProgram, world: World, event: str) -> Report:
        """Its report, once it said that or ended. Raises FaultError when it can't start."""
        from gameday.events import Progress

        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_WITHIN
        telling, told = loop.time() + TELL_AFTER, ""
        delay = 0.05
        while True:
            report = await program.report(world.kube)
            over = report.ended or report.event("out") or report.event("failed")
            if over or report.event(event) or (report.silent and self._may_be_silent(program)):
                return report
            if report.waiting.startswith(HOPELESS) or loop.time() > deadline:
                said = [*await program.log(world.kube), *await warnings_about(world.kube, program.ref)]
                why = [w for w in (report.waiting, report.silent, *said) if w]
                text = "; ".join(why) or f"it said nothing within {START_WITHIN:g} s"
                raise FaultError(f"{program.ref} on {program.node} does not run: {text}")
            if loop.time() > telling and report.waiting != told:
                told = report.waiting
                world.emit(Progress(step=world.step, message=f"{program.node} does not run it yet: {told}"))
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 0.5)


def _evidence(program: NodeProgram, said: dict[str, Any]) -> Evidence:
    facts = said.get("facts") or [f"the program says {said['event']}"]
    state = said["event"] if said["event"] in ("in", "out") else "partial"
    return Evidence(state, tuple(f"{program.node}: {f}" for f in facts))


def _complain(program: NodeProgram, report: Report) -> None:
    """Raises FaultError when the program ended, or reverts, before anybody told it to."""
    if not report.ended and not any(map(report.event, ("reverting", "out", "failed"))):
        return
    why: list[Any] = []
    for event in report.events:
        why += [*(event.get("problems") or ()), event.get("error"), event.get("why")]
    reasons = list(dict.fromkeys(str(w) for w in [*why, report.waiting] if w))
    text = "; ".join(reasons) or "it ended without a word"
    raise FaultError(f"the program on {program.node} did not keep it in force: {text}")


def _operation(
    program: OnNode, addresses: Sequence[str], world: World, mode: str, spare: float
) -> NodeProgram:
    options = options_of(world)
    name = name_of(world.run, world.step, program.node.name, mode)
    seconds = (world.hold or 0.0) + spare
    own = {"addresses": list(addresses), "seconds": seconds}
    task = Task(
        id=name,
        action=program.action,
        options=own | program.options,
        mode=mode,
        seconds=seconds,
        patience=seconds if program.options.get("allowManagement") else options.patience,
        lease=(NAMESPACE, f"gameday-{world.run}"),
        pod=(options.namespace, name),
        api_server=options.api_server or "",
    )
    settings = Settings(
        options.image,
        options.pull_policy,
        tuple(options.tolerations),
        tuple(options.image_pull_secrets),
    )
    ref = Ref("v1", "Pod", name, options.namespace)
    return NodeProgram(ref, world.run, program.node.name, task, settings)


def name_of(run: str, step: str, node: str, mode: str) -> str:
    """A name for a pod that people recognise, within the 63 characters that a host name may have."""
    text = f"{run}-{step.replace('.', '-')}-{node}" + ("-check" if mode == "check" else "")
    if len(text) <= 55 and "." not in text:  # a second program's name is longer by "-revert"
        return text
    return f"{text[:46].rstrip('-').replace('.', '-')}-{zlib.crc32(text.encode()):08x}"


async def _addresses(node: Ref, world: World) -> list[str]:
    """Addresses that the node must go on reaching: its own, and the API server's, as far as known."""
    found = await world.kube.get(node)
    own = [str(a["address"]) for a in (found.get("status") or {}).get("addresses") or ()]
    servers = [urlsplit(u).hostname or "" for u in (world.kube.server, options_of(world).api_server or "")]
    try:
        service = await world.kube.get(Ref("v1", "Endpoints", "kubernetes", "default"))
        servers += [a["ip"] for s in service.get("subsets") or () for a in s.get("addresses") or ()]
    except PlatformError:
        pass  # the addresses are one more safeguard; the default route's interface is refused in any case
    return [a for a in dict.fromkeys([*own, *servers]) if _is_address(a)]


def _is_address(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


# -- for the families' plans -------------------------------------------------------------------


def options_of(world: World) -> Options:
    """How programs run on nodes, as the experiment says."""
    from gameday.experiment.model import NodeProgram as Options

    return world.node_program or Options()


def needs(world: World) -> tuple[str, ...]:
    """The RBAC permissions that every fault on nodes needs."""
    space = options_of(world).namespace
    places = [(kind, space) for kind in ("pods", "configmaps", "serviceaccounts", *RBAC)]
    places += [(kind, NAMESPACE) for kind in RBAC]
    made = [f"{verb} {kind} {where}" for kind, where in places for verb in ("create", "get", "delete")]
    read = [*(f"{verb} pods {space}" for verb in ("list", "watch")), f"get pods/log {space}", "get nodes"]
    return tuple(dict.fromkeys([*made, *read, f"get leases.coordination.k8s.io {NAMESPACE}"]))


def check_management(allowed: bool, world: World) -> None:
    """Raises PlanError when a node's management could be cut for too long."""
    hold = world.hold or 0.0
    if allowed and hold >= MANAGEMENT_HOLD:
        raise PlanError(
            f"allowManagement: true needs a hold below {MANAGEMENT_HOLD:g} s, and this one is {hold:g} s: "
            "nobody can reach a node whose management is cut"
        )
