"""The memory of a program beyond its own death: the state that it has to go back to.

It lies on the node, not in the pod: a program that was killed is started again by the kubelet, finds it and
reverts; and where the pod is gone altogether, another one can.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

FOLDER = "var/lib/gameday"  # below the node's root; writable also where the rest of the system is not


class Memory(Protocol):
    """Where the state before is kept while a change is in force."""

    def load(self) -> dict[str, Any] | None: ...

    def save(self, kept: dict[str, Any]) -> None: ...

    def forget(self) -> None: ...


class FileMemory:
    """A file of the node; its folder goes with the last one."""

    def __init__(self, root: str, task: str) -> None:
        self._path = Path(root, FOLDER, f"{task}.json")

    def load(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        return kept

    def save(self, kept: dict[str, Any]) -> None:
        """Durable when it returns, and never half a file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
        with suppress(OSError):  # another program's file is in it
            self._path.parent.rmdir()
