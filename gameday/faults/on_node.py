"""Faults that run on nodes: their programs are checked, put in force, and read back.

A family says by `programs` what is to run where, from its plan's data; the rest is here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from gameday.extend import Evidence, Fault, FaultError, FaultPlan, Injected, Made, PlanError, Step
from gameday.extend.fault import S
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.node_report import Report, alone
from gameday.node.task import BEGIN_WITHIN, Task
from gameday.platform.complaints import warnings_about
from gameday.platform.effect import Effect, Kind, NodeState
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref
from gameday.states import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gameday.experiment.model import NodeProgram as Options
    from gameday.platform.world import World

START_WITHIN = BEGIN_WITHIN  # from a pod's creation to its first words: it does not begin any later
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


class NodeProgramFault(Fault[S]):
    """A fault that is one program on each of its nodes; `plan` is the family's.

    `spare` is how many seconds beyond the hold its programs wait before they revert by themselves. `silences`
    says that a node's kubelet not answering is what is to be expected of it.
    """

    spare: ClassVar[float] = SPARE
    silences: ClassVar[bool] = False

    @abstractmethod
    def programs(self, plan: FaultPlan[S]) -> list[OnNode]:
        """The programs and their nodes; only from the plan's data, since a plan may come from a file."""

    async def effects(self, plan: FaultPlan[S], world: World) -> tuple[Effect, ...]:
        """The nodes that programs change where something on them is the victim: a pod's VF, say."""
        lost = {v.ref.name for v in plan.victims if v.role == "node"}
        nodes = [p.node for p in self.programs(plan) if p.node.name not in lost]
        return tuple(Effect(Kind.OBJECT, node, "a program changes its hardware") for node in nodes)

    def leaves(self, plan: FaultPlan[S]) -> frozenset[NodeState]:
        silent = self.silences or any(p.options.get("allowManagement") for p in self.programs(plan))
        return frozenset({NodeState.NOT_READY} if silent else ())

    async def inspect(self, plan: FaultPlan[S], step: Step) -> list[str]:
        """Ask each node, by a program that changes nothing, what speaks against the fault."""
        checks = await self._operations(plan, step.world, "check")
        try:
            await step.ledger.perform(checks)
        except PlatformError as error:
            return [str(error)]
        found = await asyncio.gather(*(self._checked(c, step.world) for c in checks))
        return [problem for problems in found for problem in problems]

    async def _checked(self, program: NodeProgram, world: World) -> list[str]:
        try:
            report = await self._until_said(program, world, "checked")
        except (FaultError, PlatformError) as error:
            return [str(error)]
        if not report.events:
            return [f"{program.node}: the program ended without a word ({report.waiting})"]
        return [f"{program.node}: {p}" for p in report.events[-1].get("problems") or ()]

    async def inject(self, plan: FaultPlan[S], step: Step) -> None:
        programs = await self._operations(plan, step.world, "run")
        await step.ledger.perform(programs)
        done = await asyncio.gather(*(self._started(p, step.world) for p in programs), return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result

    async def _started(self, program: NodeProgram, world: World) -> None:
        """Wait until the program says that it is in force. Raises FaultError when it says otherwise."""
        _complain(program, await self._until_said(program, world, "in"))

    async def settled(self, plan: FaultPlan[S], injected: Injected, world: World) -> Evidence:
        """The programs' last words; once they are undone, those that the undo heard."""
        programs = injected.of(NodeProgram.kind)
        if not programs:
            return Evidence("out", ("no program was started",))
        seen = await asyncio.gather(*(self._look(p, world) for p in programs))
        states = {e.state for e in seen}
        facts = tuple(f for e in seen for f in e.facts)
        warned = _warn_of_those_alone(programs, injected.data.get("warned", ()), world)
        return Evidence(states.pop() if len(states) == 1 else "partial", facts, {"warned": warned})

    async def _look(self, made: Made, world: World) -> Evidence:
        program = NodeProgram.from_data(made.operation)
        if last := made.learned.get("last"):  # which its undo heard
            return _evidence(program, last)
        try:
            report = await program.report(world.kube)
        except ApiError as error:
            if error.status == 404:
                if made.state == Change.UNDONE and not made.learned.get("created"):
                    return Evidence("out", (f"{program.node}: the program was never there",))
                raise FaultError(f"{program.ref} is gone, and nobody heard its last words") from error
            raise
        if report.silent:
            fact = f"{program.node} does not answer: {report.silent}"
            return Evidence("in" if self._may_be_silent(program) else "partial", (fact,))
        if not report.events:
            return Evidence("partial", (f"{program.node}: {report.waiting or 'nothing said yet'}",))
        return _evidence(program, report.events[-1])

    # -- programs ------------------------------------------------------------------------------

    async def _operations(self, plan: FaultPlan[S], world: World, mode: str) -> list[NodeProgram]:
        nodes = {v.node or v.ref.name for v in plan.victims}  # those that are left of the plan's
        approved = {v.ref.name: v.ref.uid for v in plan.victims if v.role == "node"}
        wanted = [p for p in self.programs(plan) if p.node.name in nodes]
        found = await asyncio.gather(*(world.kube.get(p.node) for p in wanted))
        for node in found:
            meta = node["metadata"]
            if (approved.get(meta["name"]) or meta["uid"]) != meta["uid"]:
                raise FaultError(f"{Ref.of(node)} is another one than was approved: plan again")
        addresses = await asyncio.gather(*(_addresses(node, world) for node in found))
        made = zip(wanted, found, addresses, strict=True)
        return [_operation(p, node, a, world, mode, self.spare) for p, node, a in made]

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


def _warn_of_those_alone(programs: Sequence[Made], warned: Sequence[str], world: World) -> list[str]:
    """Say once of each node that its fault was over before the run ended it; returns all nodes told of."""
    from gameday.events import Warn

    reasons = {str(p.operation["node"]): alone(p.learned.get("last")) for p in programs}
    new = {node: why for node, why in reasons.items() if why and node not in warned}
    for node, why in new.items():
        text = f"the program on {node} did not keep it in force to the end{why}"
        world.emit(Warn(source="node program", message=text))
    return [*warned, *new]


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
    program: OnNode, node: Object, addresses: Sequence[str], world: World, mode: str, spare: float
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
    uid = node["metadata"]["uid"]
    return NodeProgram(ref, world.run, program.node.name, task, settings, node_uid=uid)


def name_of(run: str, step: str, node: str, mode: str) -> str:
    """A name for a pod that people recognise, within the 63 characters that a host name may have."""
    text = f"{run}-{step.replace('.', '-')}-{node}" + ("-check" if mode == "check" else "")
    if len(text) <= 55 and "." not in text:  # a second program's name is longer by "-revert"
        return text
    return f"{text[:46].rstrip('-').replace('.', '-')}-{zlib.crc32(text.encode()):08x}"


async def _addresses(node: Object, world: World) -> list[str]:
    """Addresses that the node must go on reaching: its own, and the API server's, as far as known."""
    own = [str(a["address"]) for a in (node.get("status") or {}).get("addresses") or ()]
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
    return tuple(dict.fromkeys([*made, *read]))


def check_management(allowed: bool, world: World) -> None:
    """Raises PlanError when a node's management could be cut for too long."""
    hold = world.hold or 0.0
    if allowed and hold >= MANAGEMENT_HOLD:
        raise PlanError(
            f"allowManagement: true needs a hold below {MANAGEMENT_HOLD:g} s, and this one is {hold:g} s: "
            "nobody can reach a node whose management is cut"
        )
