"""Who holds a Lease: a process, written down so that another one on its machine can see that it is gone.

Elsewhere nobody can tell a process that ended from one that is silent, and the Lease has to run out.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from enum import Enum
from pathlib import Path
from typing import Any

from gameday.platform.objects import Object, annotations_of

PROCESS_ANNOTATION = "gameday.dev/process"  # on a Lease: the holder's process, as `this_process` gives it
_ENDED = frozenset("ZX")  # states in /proc/PID/stat: a zombie, dead


class Holding(Enum):
    """A Lease's word on its holder, without watching it."""

    FREE = "free"  # given back: nobody holds it
    DEAD = "dead"  # its process ran on this machine, and is gone
    HELD = "held"  # somebody holds it, who may be silent for good


def new_holder() -> str:
    """A name for this process that no other holder ever has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def this_process() -> str:
    """Machine, boot, PID namespace, PID and start time: no two processes share all of these.

    "" where the system has no /proc.
    """
    try:
        here = _here()
        _, started = _stat(os.getpid())
    except (OSError, ValueError, IndexError):
        return ""
    return json.dumps({**here, "pid": os.getpid(), "started": started})


def holding(lease: Object) -> Holding:
    """Whether a Lease is held, as far as can be known at once."""
    if not holder_of(lease):
        return Holding.FREE
    written = annotations_of(lease).get(PROCESS_ANNOTATION) or ""
    return Holding.DEAD if _is_gone(written) else Holding.HELD


def holder_of(lease: Object) -> str:
    """The name of the holder; "" when the Lease was given back."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _is_gone(written: str) -> bool:
    """Whether a process can be proved to have ended: never by a machine or namespace that can't see it."""
    try:
        process: dict[str, Any] = json.loads(written)
        pid, here = int(process["pid"]), _here()
        if pid <= 0 or any(process[key] != value for key, value in here.items()):
            return False
    except (ValueError, KeyError, TypeError, OSError):
        return False
    try:
        os.kill(pid, 0)  # signal 0 only asks; PermissionError says that it is there
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    with contextlib.suppress(OSError, ValueError, IndexError):
        state, started = _stat(pid)
        return state in _ENDED or started != process.get("started")
    return False


def _here() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": str(Path("/proc/self/ns/pid").readlink()),
    }


def _stat(pid: int) -> tuple[str, str]:
    """A process' state and start time: fields 3 and 22 of /proc/PID/stat, as proc(5) counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
