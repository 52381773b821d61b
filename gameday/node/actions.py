"""Actions on a node, by their names.

A module of this package that defines actions needs no entry anywhere: each one registers itself.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, ClassVar

from gameday.node.host import Host

ACTIONS: dict[str, type[Action]]
Look = tuple[str, list[str]]  # in | out | partial, and the facts that say so


class Action(ABC):
    """One change to a node, with its way back. `before` is plain data, kept on the node meanwhile.

    Every method may raise ToolError or OSError: the program reports it, and reverts.
    """

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.name:
            ACTIONS[cls.name] = cls

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def check(self, host: Host) -> list[str]:
        """Reasons against it, in plain words: a missing interface, tool or kernel feature."""
        return []

    @abstractmethod
    def before(self, host: Host) -> dict[str, Any]:
        """The state to go back to, as JSON. Kept on the node before anything is changed."""

    @abstractmethod
    def apply(self, host: Host, before: dict[str, Any]) -> None:
        """Make the change."""

    def hold(self, host: Host, before: dict[str, Any], elapsed: float) -> None:
        """Called about every 0.2 s while the change is in force, `elapsed` seconds after it was made."""
        return

    @abstractmethod
    def revert(self, host: Host, before: dict[str, Any]) -> None:
        """Take back what is still ours. May be called any number of times, also after a half-made change."""

    @abstractmethod
    def look(self, host: Host, before: dict[str, Any]) -> Look:
        """Read back from the system whether the change is in force."""


ACTIONS = {}


def action(name: str, options: dict[str, Any]) -> Action:
    """The action of that name. Raises ValueError when there is none."""
    package = import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            import_module(f"{__package__}.{module.name}")
    if name not in ACTIONS:
        raise ValueError(f"there is no such action, only {', '.join(sorted(ACTIONS))}")
    return ACTIONS[name](options)
