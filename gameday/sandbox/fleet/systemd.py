"""systemd on simulated nodes, as far as their kubelets go: `systemctl` and `systemd-run`."""

from __future__ import annotations

from collections.abc import Callable

from gameday.node.host import ToolError
from gameday.sandbox.fleet.host import Hosts

KUBELET = "kubelet"


class Systemd:
    """Knows the unit kubelet, and the timers that programs make."""

    def __init__(self, works: Callable[[str], bool], stop: Callable[[str, bool], None]) -> None:
        self._works, self._stop = works, stop
        self._timers: set[tuple[str, str]] = set()  # node and unit

    def register(self, hosts: Hosts) -> None:
        hosts.tools["systemctl"] = self._systemctl
        hosts.tools["systemd-run"] = self._systemd_run

    def _systemctl(self, node: str, argv: list[str]) -> str:
        verb, unit = argv[1], argv[-1].removesuffix(".service")
        if verb == "show":
            if unit != KUBELET:
                return "LoadState=not-found\nActiveState=inactive\n"
            return f"LoadState=loaded\nActiveState={'active' if self._works(node) else 'inactive'}\n"
        if unit == KUBELET and verb in ("start", "stop"):
            self._stop(node, verb == "stop")
            return ""
        if (node, unit) in self._timers and verb == "stop":
            self._timers.discard((node, unit))
            return ""
        raise ToolError(tuple(argv), 5, f"Failed to {verb} {unit}: Unit {unit} not loaded.")

    def _systemd_run(self, node: str, argv: list[str]) -> str:
        """A timer; nobody waits for it to elapse, since a simulated program does not die unseen."""
        unit = argv[argv.index("--unit") + 1]
        if (node, f"{unit}.timer") in self._timers:
            raise ToolError(tuple(argv), 1, f"Unit {unit}.timer was already loaded or has a fragment file.")
        self._timers.add((node, f"{unit}.timer"))
        return f"Running timer as unit: {unit}.timer\n"
