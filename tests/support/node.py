"""The real node as tests see it: from outside, through another process in its namespaces."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RealNode:
    """A node of which no test need be careful: it is a machine in the machine, and goes with the session."""

    name: str
    address: str
    image: str  # busybox and Python; there is no registry to pull another one from
    process: str  # its process 1, as numbered here
    directory: str  # logs and configuration

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs on the node."""
        return ["nsenter", f"--target={self.process}", "--all", "--"]

    def run(self, *command: str) -> str:
        """What a command on the node printed; fails with what it said."""
        done = subprocess.run(
            [*self.enter, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout

    def ip(self, arguments: str) -> str:
        """`ip` with these arguments."""
        return self.run("ip", *arguments.split())

    def link(self, name: str) -> dict[str, Any]:
        """A network interface as `ip -json` tells of it."""
        found: list[dict[str, Any]] = json.loads(self.ip(f"-json -details link show dev {name}"))
        return found[0]

    def is_up(self, name: str) -> bool:
        return "UP" in self.link(name)["flags"]

    def processes(self, name: str) -> dict[int, str]:
        """Processes of that name: number on the node -> state letter."""
        listed = self.run("ps", "-e", "-o", "pid=,state=,comm=").splitlines()
        rows = (line.split(maxsplit=2) for line in listed)
        return {int(pid): state for pid, state, comm in rows if comm == name}
