"""Actions on the node's own services: its kubelet stops."""

from __future__ import annotations

from typing import Any

from gameday.node.actions import Action, Look
from gameday.node.host import Host, ToolError

SPARE = 60  # seconds after which systemd starts the kubelet itself, should this program not have done so


class KubeletStop(Action):
    """The kubelet stops: by systemd where that runs it, else by SIGSTOP, so that nothing starts it again.

    Options: `unit` (kubelet), `seconds` (the longest that it may last). While the kubelet is down nobody
    would start this program again, so systemd gets a timer of its own that starts the kubelet.
    """

    name = "kubelet-stop"

    @property
    def unit(self) -> str:
        return str(self.options.get("unit") or "kubelet")

    def check(self, host: Host) -> list[str]:
        if self._active(host) == "active" or _pid(host):
            return []
        return [
            f"neither an active systemd unit {self.unit} nor a process `kubelet` is on this node: "
            "if its kubelet is part of another program (k3s, rke2), name that one's unit"
        ]

    def before(self, host: Host) -> dict[str, Any]:
        if self._active(host) == "active":
            return {"unit": self.unit}
        pid = _pid(host)
        return {"pid": pid, "started": _stat(host, pid)[1]}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        if "unit" not in before:
            host.run("kill", "-STOP", str(before["pid"]))
            return
        after = int(self.options.get("seconds", 0)) + SPARE
        timer = ("--unit", self._timer, f"--on-active={after}", "--timer-property=AccuracySec=1s")
        host.run("systemd-run", *timer, "systemctl", "start", self.unit)
        host.run("systemctl", "stop", self.unit)

    def revert(self, host: Host, before: dict[str, Any]) -> None:
        if "unit" not in before:
            if self._ours(host, before):
                host.run("kill", "-CONT", str(before["pid"]))
            return
        if self._active(host) != "active":
            host.run("systemctl", "start", self.unit)
        try:
            host.run("systemctl", "stop", f"{self._timer}.timer")
        except ToolError as error:
            if error.code != 5:  # no such unit: it was never made, or it is over
                raise

    def look(self, host: Host, before: dict[str, Any]) -> Look:
        if "unit" in before:
            state = self._active(host)
            return ("out" if state == "active" else "in"), [f"systemd: {self.unit} is {state}"]
        if not self._ours(host, before):
            return "out", [f"process {before['pid']} (kubelet) ended meanwhile"]
        state = _stat(host, before["pid"])[0]
        return ("in" if state == "T" else "out"), [f"process {before['pid']} (kubelet) is in state {state}"]

    @property
    def _timer(self) -> str:
        return f"gameday-starts-{self.unit.replace('.', '-')}"

    def _active(self, host: Host) -> str:
        """The unit's state; "" where systemd does not run this node, or does not know the unit."""
        try:
            shown = host.run("systemctl", "show", "--property=LoadState,ActiveState", self.unit)
        except ToolError:
            return ""
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return values.get("ActiveState", "") if values.get("LoadState") == "loaded" else ""

    def _ours(self, host: Host, before: dict[str, Any]) -> bool:
        """Whether that process is still the one that was stopped."""
        try:
            return bool(_stat(host, before["pid"])[1] == before["started"])
        except OSError:
            return False


def _pid(host: Host) -> int:
    """The oldest process named kubelet; 0 when there is none."""
    try:
        return int(host.run("pgrep", "-o", "-x", "kubelet"))
    except (ToolError, ValueError):
        return 0


def _stat(host: Host, pid: int) -> tuple[str, str]:
    """A process' state letter and start time (fields 3 and 22 of proc(5)'s stat)."""
    fields = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[0], fields[19]
