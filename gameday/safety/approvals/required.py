"""Whether as many people as an experiment requires have approved just this plan; waiting until they have."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from gameday.events import Emit, Preflight
from gameday.experiment.model import Approvals
from gameday.experiment.quantity import format_duration
from gameday.platform.errors import PlatformError
from gameday.platform.world import World
from gameday.safety.approvals.approval import Approval, Source
from gameday.safety.approvals.cluster import InCluster
from gameday.safety.plan import Plan

CHECK = "approvals"
HOW = "gameday plan FILE -o PLAN; gameday approve PLAN FILE; gameday run FILE --plan PLAN"
EVERY = 2.0  # seconds between two looks at the sources


@dataclass(frozen=True)
class Judgement:
    """The approvals that hold, and how far they go."""

    wanted: Approvals
    plan: Plan
    found: tuple[Approval, ...]

    @property
    def valid(self) -> list[str]:
        """Who approved and may; of each person one name."""
        by = {a.by for a in self.found}
        if not self.wanted.from_:
            return sorted(by)
        return sorted(min(by.intersection(names)) for names in self.wanted.people if by.intersection(names))

    @property
    def enough(self) -> bool:
        return len(self.valid) >= self.wanted.required

    @property
    def ends(self) -> float:
        """When the first of the people who approved does so no more, in seconds since the epoch."""
        of_each = [[a.until for a in self.found if a.by in self._names(name)] for name in self.valid]
        return min(map(max, of_each))

    def _names(self, name: str) -> tuple[str, ...]:
        return next((names for names in self.wanted.people if name in names), (name,))

    @property
    def who(self) -> str:
        may = {name for names in self.wanted.people for name in names}
        ignored = sorted({a.by for a in self.found} - may) if may else ()
        more = f" ({', '.join(ignored)} may not approve)" if ignored else ""
        return f"approved by {', '.join(self.valid) or 'nobody'}{more}"

    @property
    def missing(self) -> str:
        return f"plan {self.plan.digest[:12]}: {self.wanted.required} approvals are required, {self.who}"


def sources(wanted: Approvals, world: World) -> list[Source]:
    """Where approvals are kept, so that they can be looked up at any time."""
    found: list[Source] = [InCluster(world.kube)]
    if wanted.service_now is not None:
        from gameday.safety.approvals.servicenow import ServiceNow

        found.append(ServiceNow(wanted.service_now.url, wanted.service_now.change))
    if wanted.webhook is not None:
        from gameday.safety.approvals.webhook import Webhook

        found.append(Webhook(wanted.webhook))
    return found


async def judge(wanted: Approvals, plan: Plan, asked: list[Source]) -> Judgement:
    """The approvals of all sources now, and those seen before; no approval outlives the plan."""
    found = await asyncio.gather(*(source.approvals(plan) for source in asked))
    ends = plan.expires or float("inf")
    every = (a for part in (*found, plan.approvals) for a in part)
    bounded = (replace(a, until=min(a.until, ends)) for a in every)
    return Judgement(wanted, plan, tuple(a for a in bounded if a.until > time.time()))


async def approved(wanted: Approvals | None, plan: Plan, world: World) -> list[Preflight]:
    """Whether as many as the file requires have approved just this plan. Raises PlatformError."""
    if wanted is None:
        return []
    if not plan.kept:
        await InCluster(world.kube).approvals(plan)  # whether we may see them, and for `gameday rbac`
        text = f"{wanted.required} must approve the plan before it is run"
        level = "refused" if world.run else "warning"
        return [Preflight(check=CHECK, level=level, message=text, hint=HOW)]
    now = await judge(wanted, plan, sources(wanted, world))
    if not now.enough:
        return [
            Preflight(check=CHECK, level="refused", message=now.missing, hint="gameday approve PLAN FILE")
        ]
    left = format_duration(round(now.ends - time.time()))
    text = f"plan {plan.digest[:12]} is {now.who}, for {left} more"
    return [Preflight(check=CHECK, level="ok", message=text)]


async def wait(wanted: Approvals, plan: Plan, world: World, emit: Emit) -> None:
    """Ask for approvals and wait until there are enough, for `within` at most. Raises PlatformError.

    Those that no source keeps stay with the plan; all others are asked for again before the run begins.
    """
    asked, ends = sources(wanted, world), time.monotonic() + wanted.within
    if wanted.slack is not None:
        from gameday.safety.approvals.slack import SlackButton

        asked.append(SlackButton(wanted.slack, plan))
    told = ""
    async with AsyncExitStack() as stack:
        for source in asked:
            await stack.enter_async_context(source)
        while True:
            try:
                now = await judge(wanted, plan, asked)
                text = now.missing
                if now.enough:
                    heard = [await s.approvals(plan) for s in asked if not s.lasting]
                    plan.approvals = tuple(a for part in heard for a in part)
                    return
            except PlatformError as error:
                text = str(error)
            left = ends - time.monotonic()
            if left <= 0 or plan.expired():
                return
            if text != told:
                waits = format_duration(round(left))
                emit(Preflight(check=CHECK, level="warning", message=f"{text}; waiting for {waits} more"))
                told = text
            await asyncio.sleep(min(EVERY, left))
