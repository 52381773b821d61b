"""The simulated GPUs: what DCGM, nvidia-smi and the kernel log say of them, and what may be set there.

In this sandbox a fatal XID is a broken GPU, wherever it is said: the pod that holds it hangs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gameday.node.host import ToolError
from gameday.platform.objects import Object, is_finished
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import gpus, labels_of
from gameday.sandbox.fleet import xids
from gameday.sandbox.fleet.host import Files, Hosts
from gameday.sandbox.fleet.nodes import GPUS

if TYPE_CHECKING:
    from gameday.sandbox.fleet.kubelet_api import Command

IDLE, BUSY, MOST = 90.0, 633.0, 700.0  # W: an idle GPU, one that trains, and the highest power limit
LEAST = 200.0  # W: the lowest power limit
CLOCK = 1980  # MHz: the highest SM clock
_BUSES = ("1b", "43", "52", "61", "9d", "c3", "d1", "df")  # as in an HGX H100
_LINE = re.compile(r"NVRM: Xid \(PCI:\w{4}:(\w{2}):\w{2}[.\w]*\): (\d+)")
# Uncorrectable ECC errors by dcgm_fields.h (volatile, aggregate, in device memory): XID 48 to the driver.
_DOUBLE_BIT = frozenset({311, 313, 319})
_XID_FIELD = 230  # DCGM_FI_DEV_XID_ERRORS
_FOUND = "Successfully injected field info.\n"


@dataclass
class Card:
    """One GPU. `fields`: what was injected into DCGM, by field number.

    `incident`: the XID that DCGM's health watches hold against the GPU. They go by the samples that the
    engine retains, so that it stays when 0 is injected afterwards, until the engine is started anew.
    """

    fields: dict[int, float] = field(default_factory=dict)
    incident: int = 0
    limit: float = MOST  # W
    clock: int = CLOCK  # MHz

    @property
    def speed(self) -> float:
        """How fast it works, compared with an unlimited one."""
        return min(self.clock / CLOCK, (self.limit - IDLE) / (BUSY - IDLE), 1.0)


@dataclass
class Line:
    """An XID's line in a node's kernel log. `repaired`: its GPU was reset since."""

    at: float
    gpu: int
    xid: int
    text: str
    repaired: bool = False


class Gpus:
    """All cards of all nodes. Whoever depends on them listens, and is called with the node's name."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._cards: dict[str, list[Card]] = {}
        self._log: dict[str, list[Line]] = {}
        self.listeners: list[Callable[[str], None]] = []

    def register(self, hosts: Hosts, programs: dict[str, Command]) -> None:
        """Be found by the nodes' programs, and by who execs into a DCGM pod."""
        programs["dcgmi"] = self.dcgmi
        hosts.tools |= {"nvidia-smi": self.nvidia_smi, "dmesg": self.dmesg}
        hosts.files["/dev/kmsg"] = Files(write=self.write_kmsg)
        self._cache.listen("Pod", self._pod_changed)

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        """What was injected into DCGM lives in its memory."""
        if new is None and old is not None and labels_of(old).get("app") == "nvidia-dcgm":
            for card in self.cards(node := old["spec"].get("nodeName", "")):
                card.fields.clear()
                card.incident = 0
            self._tell(node)

    def cards(self, node: str) -> list[Card]:
        return self._cards.setdefault(node, [Card() for _ in range(GPUS)])

    def lines(self, node: str) -> list[Line]:
        """The kernel log's XIDs, oldest first."""
        return self._log.setdefault(node, [])

    def reset(self, node: str) -> None:
        """The node's GPUs are reset: what the kernel log told is over. What is in DCGM's cache stays."""
        for line in self.lines(node):
            line.repaired = True
        self._tell(node)

    def errors(self, node: str) -> dict[int, int]:
        """The XIDs of a node that are in force, by GPU; the fatal ones win."""
        if node not in self._cards and node not in self._log:
            return {}
        found = {line.gpu: line.xid for line in self.lines(node) if not line.repaired}
        for index, card in enumerate(self.cards(node)):
            if number := int(card.fields.get(_XID_FIELD, 0)) or card.incident:
                found[index] = number
        return found

    def broken(self, node: str) -> dict[int, int]:
        """GPUs that can't be used, with the XID that says so."""
        return {gpu: number for gpu, number in self.errors(node).items() if xids.is_serious(number)}

    def holders(self, node: str) -> list[Object]:
        """The pod on each GPU of a node, from the first one on."""
        pods = [p for p in self._cache.pods_on(node) if not is_finished(p) and gpus(p)]
        pods.sort(key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))
        return [p for p in pods for _ in range(gpus(p))]

    def effect(self, pod: Object) -> dict[str, float | bool]:
        """What its GPUs do to a pod: `cut` when one is broken, `busy` by as much as they are slower."""
        node = pod["spec"].get("nodeName", "")
        if node not in self._cards and node not in self._log:
            return {}
        uid = pod["metadata"]["uid"]
        mine = [i for i, p in enumerate(self.holders(node)[:GPUS]) if p["metadata"]["uid"] == uid]
        slowest = min((self.cards(node)[i].speed for i in mine), default=1.0)
        cut = any(i in self.broken(node) for i in mine)
        return {**({"busy": 1 - slowest} if slowest < 1 else {}), **({"cut": True} if cut else {})}

    def _tell(self, node: str) -> None:
        for listener in self.listeners:
            listener(node)

    # -- DCGM ----------------------------------------------------------------------------------

    async def dcgmi(self, pod: Object, argv: list[str]) -> tuple[int, str, str]:
        """What `dcgmi` answers in a pod: (exit code, stdout, stderr)."""
        options = {a: b for a, b in pairwise(argv) if a.startswith("-")}
        node, cards = pod["spec"]["nodeName"], self.cards(pod["spec"]["nodeName"])
        if argv[1:3] == ["test", "--inject"]:
            index, number = int(options["--gpuid"]), int(options["-f"])
            if index >= len(cards):
                return 255, "", f"Error: Cannot inject field info: GPU {index} is not known\n"
            injected = cards[index].fields[number] = float(options["-v"])
            cards[index].incident = _incident(number, injected) or cards[index].incident
            if not cards[index].fields[number]:
                del cards[index].fields[number]  # what DCGM samples itself comes back with its next sample
            self._tell(node)
            return 0, _FOUND, ""
        if argv[1:3] == ["health", "--check"]:
            said = "Failure" if any(card.incident for card in cards) else "Healthy"
            report = {"body": {"Overall Health": {"value": said}}, "header": ["Health Monitor Report"]}
            return 0, json.dumps(report, indent=2) + "\n", ""
        if argv[1:2] == ["dmon"]:
            index, number = int(options["-i"]), int(options["-e"])
            value = cards[index].fields.get(number, 0.0 if number == _XID_FIELD else None)
            shown = "N/A" if value is None else f"{value:g}"
            return 0, f"#Entity   FIELD{number}\nID\nGPU {index}     {shown}\n", ""
        known = "`test --inject`, `health --check` and `dmon`"
        return 1, "", f"dcgmi: this sandbox knows {known}, not {' '.join(argv[1:])}\n"

    # -- the node's own tools ------------------------------------------------------------------

    def nvidia_smi(self, node: str, argv: list[str]) -> str:
        """What `nvidia-smi` prints on a node. Raises ToolError."""
        cards = self.cards(node)
        options = {a: b for a, b in pairwise(argv) if a.startswith("-")}
        query = next((a for a in argv if a.startswith("--query-gpu=")), None)
        if query is not None:
            names = query.partition("=")[2].split(",")
            rows = ([_queried(name, i, card) for name in names] for i, card in enumerate(cards))
            return "".join(", ".join(row) + "\n" for row in rows)
        chosen = [cards[int(options["-i"])]] if "-i" in options else cards
        for card in chosen:
            if "-pl" in options:
                wanted = float(options["-pl"])
                if not LEAST <= wanted <= MOST:
                    raise ToolError(
                        tuple(argv), 2, f"Provided power limit {wanted:.2f} W is not a valid power limit"
                    )
                card.limit = wanted
            elif "-lgc" in options:
                card.clock = min(CLOCK, int(options["-lgc"].rpartition(",")[2]))
            elif "-rgc" in argv:
                card.clock = CLOCK
        self._tell(node)
        return "All done.\n"

    def dmesg(self, node: str, argv: list[str]) -> str:
        return "".join(f"[{line.at:.6f}] {line.text}\n" for line in self.lines(node))

    def write_kmsg(self, node: str, path: str, text: str) -> None:
        """A line for the kernel log, its priority in front."""
        for line in text.splitlines():
            said = re.sub(r"^<\d+>", "", line)
            if match := _LINE.search(said):
                bus, number = match[1].lower(), int(match[2])
                index = _BUSES.index(bus) if bus in _BUSES else 0
                self.lines(node).append(Line(time.time(), index, number, said))
        self._tell(node)

    def log_xid(self, node: str, number: int) -> None:
        """As GPUd's fault injection: the driver's line for the first GPU."""
        said = f"{number}, pid='<unknown>', name=<unknown>, {xids.name_of(number)}"
        text = f"NVRM: Xid (PCI:0000:{_BUSES[0]}:00): {said}"
        self.write_kmsg(node, "/dev/kmsg", text)


def _incident(number: int, value: float) -> int:
    """The XID that DCGM's health watches hold against a GPU for a value; 0 for a harmless one."""
    if number == _XID_FIELD and xids.is_serious(value):
        return int(value)
    return 48 if number in _DOUBLE_BIT and value > 0 else 0


def _queried(name: str, index: int, card: Card) -> str:
    values: dict[str, object] = {
        "index": index,
        "power.limit": f"{card.limit:.2f}",
        "power.min_limit": f"{LEAST:.2f}",
        "power.max_limit": f"{MOST:.2f}",
        "clocks.max.sm": CLOCK,
        "clocks.sm": card.clock,
        "pci.bus_id": f"00000000:{_BUSES[index].upper()}:00.0",
    }
    return str(values.get(name, "[N/A]"))
