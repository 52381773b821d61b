"""The lever: one object in the cluster with which a person stops every run, and keeps new ones away.

`gameday halt` and `gameday unhalt` write the ConfigMap `gameday-lever`; so does anybody with kubectl. The
lever is a person's, and no part of any run's ledger: no undo, no recovery and no run ever changes it. What
can't be read, or not understood, counts as pulled.

Its keys, each JSON: `halt` ({"reason", "by", "since", "until"}, all but `reason` optional; without the key
nothing is halted) and `freeze` (a list of {"from", "to", "reason"}). Times are RFC 3339 with an offset, and
judged by the wall clock, as people mean them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gameday.ledger.keeping import NAMESPACE, ensure_namespace
from gameday.platform.attending import Unseen, attend, read
from gameday.platform.conditional import create_if_absent, write_if
from gameday.platform.errors import ApiError, PlatformError, not_found
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref

LEVER = Ref("v1", "ConfigMap", "gameday-lever", NAMESPACE)
HALT, FREEZE = "halt", "freeze"
ATTEMPTS = 5  # at a write that others raced
MEND = f"mend it, or remove it: kubectl -n {NAMESPACE} delete configmap {LEVER.name}"

_Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Halt(_Part):
    """Somebody pulled the lever. Without `until` for as long as nobody takes it off."""

    reason: _Words = ""
    by: _Words = ""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class Window(_Part):
    """A time in which nothing may run."""

    start: AwareDatetime = Field(alias="from")
    to: AwareDatetime
    reason: _Words = ""

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.to <= self.start:
            raise ValueError("a freeze window ends after it begins")
        return self

    def __str__(self) -> str:
        return f"{_told(self.start)} to {_told(self.to)}" + (f": {self.reason}" if self.reason else "")


_WINDOWS = TypeAdapter(list[Window])


class Malformed(PlatformError):
    """The lever is there, and can't be understood."""


@dataclass(frozen=True)
class Lever:
    """The lever as it was read."""

    halt: Halt | None = None
    windows: tuple[Window, ...] = ()

    @classmethod
    def of(cls, found: Object | None) -> Lever:
        """Raises Malformed."""
        if found is None:
            return cls()
        data = (found.get("binaryData") or {}) | (found.get("data") or {})
        if unknown := data.keys() - {HALT, FREEZE}:
            raise Malformed(f"the lever has a key {sorted(unknown)[0]!r} that nobody knows: {MEND}")
        try:
            halt = Halt.model_validate_json(data[HALT]) if HALT in data else None
            windows = _WINDOWS.validate_json(data[FREEZE]) if FREEZE in data else []
        except (ValidationError, RecursionError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is nested too deep"
            raise Malformed(f"the lever can't be understood ({what}): {MEND}") from None
        return cls(halt, tuple(sorted(windows, key=lambda w: w.start)))

    def pulled(self, now: datetime) -> str:
        """Why nothing may run at that time, "" where runs are free to."""
        halt = self.halt
        if halt is not None and (halt.until is None or now < halt.until):
            by = f" by {halt.by}" if halt.by else ""
            until = f" until {_told(halt.until)}" if halt.until else ""
            return f"halted{by}{until}" + (f": {halt.reason}" if halt.reason else "")
        for window in self.windows:
            if window.start <= now < window.to:
                return f"in a freeze window, {window}"
        return ""

    def soon(self, now: datetime, seconds: float) -> Window | None:
        """The next freeze window that begins within so many seconds."""
        ahead = (w for w in self.windows if 0 < (w.start - now).total_seconds() < seconds)
        return next(ahead, None)


async def read_lever(kube: Kube) -> Lever:
    """The lever as it is now. Raises PlatformError where it can't be read, Malformed where not understood."""
    return Lever.of(await read(kube, LEVER))


async def why_pulled(kube: Kube) -> str:
    """Why nothing may be changed at this moment, "" where it may. What can't be seen is pulled."""
    try:
        return (await read_lever(kube)).pulled(datetime.now(UTC))
    except PlatformError as error:
        return str(error)


async def hear_lever(kube: Kube, pulled: Callable[[str], None]) -> None:
    """Call `pulled` with the reason, as long as the lever is. A guard: for ever, until it raises Unseen."""

    async def look(found: Object | None) -> None:
        try:
            why = Lever.of(found).pulled(datetime.now(UTC))
        except Malformed as error:
            why = str(error)
        if why:
            pulled(why)

    await attend(kube, LEVER, look)


# -- what people do with it ------------------------------------------------------------------------


async def pull(kube: Kube, halt: Halt) -> None:
    """Halt everything. Needs no look at what the lever was."""
    text = halt.model_dump_json(exclude_none=True)
    await ensure_namespace(kube)
    try:
        await kube.patch(LEVER, {"data": {HALT: text}}, "merge")
    except ApiError as error:
        if not not_found(error):
            raise
        await kube.create(_manifest({HALT: text}))


async def let_go(kube: Kube) -> None:
    """Take the halt off; freeze windows stay."""
    if await kube.find(LEVER) is not None:
        await kube.patch(LEVER, {"data": {HALT: None}}, "merge")


async def change_windows(kube: Kube, change: Callable[[tuple[Window, ...]], tuple[Window, ...]]) -> None:
    """Replace the freeze windows by what `change` makes of them. Raises Malformed."""
    await ensure_namespace(kube)
    for _ in range(ATTEMPTS):
        found = await kube.find(LEVER)
        windows = change(Lever.of(found).windows)
        text = _WINDOWS.dump_json(list(windows), by_alias=True).decode() if windows else None
        if found is None:
            written = await create_if_absent(kube, _manifest({FREEZE: text} if text else {}))
        else:
            written = await write_if(kube, found, {"data": {FREEZE: text}})
        if written is not None:
            return
    raise PlatformError("the lever keeps being changed by others: try again")


def _manifest(data: dict[str, Any]) -> Object:
    meta = {"name": LEVER.name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _told(at: datetime) -> str:
    return at.isoformat(timespec="minutes").replace("+00:00", "Z")


__all__ = ["LEVER", "Halt", "Lever", "Malformed", "Unseen", "Window", "hear_lever", "read_lever"]
