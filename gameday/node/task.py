"""The task of the program: one JSON file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PATIENCE = 15.0
BEGIN_WITHIN = 120.0  # seconds from the pod's creation, with the image's download
# Why a program ended though its time was not up, when somebody wanted it to.
TERMINATED = "stopped by SIGTERM"
DELETING = "the program's pod is being deleted"
POD_GONE = "the program's pod is gone from the API"
TOLD = (TERMINATED, DELETING, POD_GONE)


@dataclass(frozen=True)
class Task:
    """One action on one node. Times are in seconds.

    `mode`: run makes the change and takes it back; check only asks what speaks against it; revert takes
    back what an earlier program of this `id` left, if anything.
    `seconds` is the longest that the change may be in force, `patience` how long the API server may be silent
    meanwhile. The change is made within `begin_within` of the pod's creation or not at all: who asked for it
    gave up by then. `lease` and `pod` are [namespace, name] of the run's Lease and of the program's own pod.
    `api_server` is its URL; "" finds it as every pod does.
    """

    id: str
    action: str
    options: dict[str, Any] = field(default_factory=dict)
    mode: str = "run"
    seconds: float = 60.0
    patience: float = PATIENCE
    lease: tuple[str, str] = ("", "")
    pod: tuple[str, str] = ("", "")
    api_server: str = ""
    begin_within: float = BEGIN_WITHIN

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Task:
        return cls(**{**data, "lease": tuple(data["lease"]), "pod": tuple(data["pod"])})

    @classmethod
    def read(cls, text: str, mode: str | None = None) -> Task:
        """The task of a JSON text; `mode` instead of the one that it names."""
        data = json.loads(text)
        return cls.from_data({**data, "mode": mode or data["mode"]})
