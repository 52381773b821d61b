"""The operation that runs a Chaos Toolkit activity, with the activity that takes it back as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from gameday.ledger.operations import RESTORED, UNDO_WITHIN, Operation, Refused, Undone
from gameday.platform.chaostoolkit import run_activity
from gameday.platform.effect import Touch
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

NOT_RECORDED = "(written into the file itself, so not recorded)"


@dataclass(frozen=True)
class Activity(Operation):
    """Run an activity; undo runs another one, where the file names it.

    What an activity changes cannot be read back, so the undo runs again whenever it is asked for. Without
    `activity` there is only the undo, as of a whole run.
    """

    kind: ClassVar[str] = "activity"
    interruptible: ClassVar[bool] = True  # a cancellation kills it, instead of waiting for its end
    verifiable: ClassVar[bool] = False
    past: ClassVar[str] = "not undone"
    name: str
    what: str
    activity: dict[str, Any] | None = None  # not recorded: undo does not need it
    undo_with: dict[str, Any] | None = None
    configuration: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    chain: str = ""  # undone one after the other with those of the same chain

    @property
    def ref(self) -> Ref:
        return Ref("chaostoolkit.org/v1", "Activity", self.chain or self.name)

    @property
    def summary(self) -> str:
        then = f", undone by {self.undo_with['name']}" if self.undo_with else ""
        return f"run {self.what}{then}" if self.what else then.lstrip(", ")

    @property
    def undo_within(self) -> float:
        return UNDO_WITHIN + self.timeout

    def touches(self) -> tuple[Touch, ...]:
        """The activity, by the name that is in the plan: what it changes, only the activity itself knows."""
        return (Touch(Ref("chaostoolkit.org/v1", "Activity", self.name)),)

    def to_data(self) -> dict[str, Any]:
        return {
            "op": self.kind,
            "name": self.name,
            "what": self.what,
            "undo": self.undo_with,
            "configuration": self.configuration,
            "secrets": without_literals(self.secrets),
            "timeout": self.timeout,
            "chain": self.chain,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Activity:
        return cls(
            data["name"],
            data["what"],
            undo_with=data["undo"],
            configuration=data["configuration"],
            secrets=data["secrets"],
            timeout=data["timeout"],
            chain=data["chain"],
        )

    async def make(self, kube: Kube) -> dict[str, Any]:
        """Gives what the activity returned, as `result`."""
        return {} if self.activity is None else {"result": await self._run(self.activity, kube)}

    def not_made(self, error: Exception) -> bool:
        return isinstance(error, Refused)  # an activity that fails may have done a part

    async def has_landed(self, kube: Kube) -> bool:
        return self.undo_with is None  # else what it sent, only the activity itself knew

    async def undo(self, kube: Kube) -> Undone:
        if self.undo_with is None:
            return Undone("irreversible", f"the file names no activity that undoes {self.name}")
        needed = self.undo_with["provider"].get("secrets") or ()
        if any(_unrecorded(self.secrets.get(name)) for name in needed):
            why = f"{self.undo_with['name']} needs a secret that the record does not hold: run it by hand"
            return Undone("failed", why)
        try:
            await self._run(self.undo_with, kube)
        except PlatformError as error:
            return Undone("failed", str(error))
        return RESTORED

    async def audit(self, kube: Kube) -> Undone:
        if self.undo_with is None:
            return Undone("irreversible", f"the file names no activity that undoes {self.name}")
        return Undone("undone", f"{self.undo_with['name']} was run; what it changed cannot be read back")

    async def _run(self, activity: dict[str, Any], kube: Kube) -> Any:
        environment = kube.environment()
        return await run_activity(activity, self.timeout, environment, self.configuration, self.secrets)


def without_literals(secrets: dict[str, Any]) -> dict[str, Any]:
    """Secrets by where they come from. A record in the cluster is no place for the secrets themselves."""
    kept: dict[str, Any] = {}
    for key, value in secrets.items():
        if not isinstance(value, dict):
            kept[key] = NOT_RECORDED
        elif value.get("type") in ("env", "vault"):
            kept[key] = value
        else:
            kept[key] = without_literals(value)
    return kept


def _unrecorded(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_unrecorded(v) for v in value.values())
    return bool(value == NOT_RECORDED)
