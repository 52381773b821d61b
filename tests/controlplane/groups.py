"""The control groups of a real node, under one group of its own, so that none stays when the node is gone.

Works with both versions of control groups; a machine has the first one mounted controller by controller.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

GONE_WITHIN = 20.0
# A shell moves itself into groups and becomes the program: so all that the program starts is in them too.
JOIN = 'for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; exec "$@"'


class Groups:
    """One group per hierarchy, all of the same name."""

    def __init__(self, name: str) -> None:
        self._tops = [root / name for root in _hierarchies()]

    def make(self) -> None:
        for top in self._tops:
            top.mkdir(exist_ok=True)
            # A new group of the first version may use no processor and no memory until it is told which.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (top / setting).exists() and not (top / "cgroup.controllers").exists():
                    (top / setting).write_text((top.parent / setting).read_text())
            _processes(top).mkdir(exist_ok=True)

    @property
    def join_root(self) -> list[str]:
        """The start of a command line whose program sees these groups as the roots (in a new namespace)."""
        return ["sh", "-c", JOIN, "sh", " ".join(map(str, self._tops))]

    @property
    def join(self) -> list[str]:
        """The start of a command line whose program is one of the node's own."""
        return ["sh", "-c", JOIN, "sh", " ".join(str(_processes(top)) for top in self._tops)]

    def settle(self, *processes: int) -> None:
        """Where a group may hold either processes or groups, those that joined the root leave it."""
        for top in self._tops:
            for process in processes:
                (_processes(top) / "cgroup.procs").write_text(str(process))

    def remove(self) -> None:
        """Waits until the last process is gone."""
        deadline = time.monotonic() + GONE_WITHIN
        while left := [top for top in self._tops if not _removed(top)]:
            if time.monotonic() > deadline:
                raise OSError(f"processes of the node are still there, or cannot die: {left[0]}")
            time.sleep(0.05)

    @staticmethod
    def sweep(prefix: str) -> None:
        """Remove what a launcher left that was killed; its processes died with it."""
        for root in _hierarchies():
            for top in root.glob(f"{prefix}*"):
                if not Path(f"/proc/{top.name.removeprefix(prefix)}").exists():
                    _removed(top)


def _hierarchies() -> list[Path]:
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(where) for _, where, kind, *_ in lines if kind in ("cgroup", "cgroup2")]


def _processes(top: Path) -> Path:
    return top / "system" if (top / "cgroup.controllers").exists() else top


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not top.exists()
