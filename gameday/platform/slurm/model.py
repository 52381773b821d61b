"""A Slurm cluster: its nodes, jobs and partitions, in Slurm's own words."""

from __future__ import annotations

from dataclasses import dataclass

from gameday.experiment.text import shorten

OUT = frozenset({"DRAIN", "DOWN", "FAIL", "ERROR"})  # Slurm starts nothing new on such a node
BUSY = frozenset({"ALLOCATED", "MIXED", "COMPLETING"})
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
MOST_NODES = 200_000  # of one range; Slurm itself knows no more than 64,000 nodes


@dataclass(frozen=True)
class Node:
    """A node. `states` are its base state and its flags, as IDLE and DRAIN; `reason` without who and when."""

    name: str
    states: frozenset[str]
    reason: str = ""
    partitions: tuple[str, ...] = ()
    gpus: int = 0
    comment: str = ""  # where Slinky's operator names the pod

    @property
    def out(self) -> bool:
        """Whether Slurm starts nothing new on it: drained, draining, down, failing."""
        return bool(self.states & OUT)

    @property
    def word(self) -> str:
        """The state as sinfo says it."""
        if "DRAIN" in self.states:
            return "draining" if self.states & BUSY else "drained"
        base = ("DOWN", "FAIL", "ERROR", "ALLOCATED", "MIXED", "COMPLETING", "IDLE")
        return next((s for s in base if s in self.states), "UNKNOWN").lower()


@dataclass(frozen=True)
class Job:
    """A job. `state` is the one word that squeue shows; `nodes` are those it runs, or last ran, on."""

    number: int
    name: str
    state: str
    reason: str = ""
    nodes: tuple[str, ...] = ()
    partition: str = ""
    restarts: int = 0
    requeue: bool = True  # whether it may be requeued at all
    gpus: int = 0

    def __str__(self) -> str:
        return f"job {self.number} ({self.name})"

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Partition:
    """A partition. `state`: UP, DOWN (takes jobs, starts none), DRAIN (takes none), INACTIVE (neither)."""

    name: str
    state: str
    nodes: tuple[str, ...] = ()


def split_states(text: str) -> frozenset[str]:
    """scontrol's `DOWN*+DRAIN`. A star says that the node doesn't respond; other marks tell of power."""
    states = set()
    for part in text.upper().split("+"):
        word = part.strip("*~#!%$@^-")
        states |= {word} | ({"NOT_RESPONDING"} if part.endswith("*") else set())
    return frozenset(states - {""})


def job_state(states: list[str]) -> str:
    """The word that counts of a job's state and flags, which v0.0.40 and later list: the state is first."""
    return states[0].upper() if states else "UNKNOWN"


def gpus_of(text: str) -> int:
    """GPUs in a GRES (`gpu:h100:8(S:0-1)`), in a request (`gres/gpu:8`, `gres:gpu:8`), or in a TRES text.

    In the last (`cpu=32,gres/gpu=16,gres/gpu:h100=16`) those of one type are counted among all; a cluster
    may track them alone.
    """
    everything = of_types = 0
    for part in _outside_brackets(text):
        name, equals, count = part.partition("(")[0].partition("=")
        words = name.removeprefix("gres/").removeprefix("gres:").split(":")
        if words[0] != "gpu":
            continue
        if not equals:
            of_types += int(words[-1]) if words[-1].isdigit() else 1
        elif len(words) == 1:
            everything += int(count) if count.isdigit() else 0
        else:
            of_types += int(count) if count.isdigit() else 0
    return everything or of_types


def expand(hostlist: str) -> tuple[str, ...]:
    """The names of a hostlist: `gpu-[0-2,7],login1`. Leading zeros are kept."""
    return tuple(name for part in _outside_brackets(hostlist) for name in _expand(part))


def _expand(part: str) -> list[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, tail = rest.partition("]")
    numbers: list[str] = []
    for item in inside.split(","):
        first, dash, last = item.partition("-")
        width = len(first)
        if dash and not 0 <= int(last) - int(first) < MOST_NODES:
            raise ValueError(f"{shorten(part, 100)!r} is no list of hosts")
        numbers += [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)] if dash else [first]
    return [head + number + end for number in numbers for end in _expand(tail)]


def _outside_brackets(text: str) -> list[str]:
    """Split at the commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [p.strip() for p in parts if p.strip() and p.strip() != "(null)"]
