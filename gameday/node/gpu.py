"""Actions on a node's GPUs: less power or lower clocks, and the driver's line of an error in the log."""

from __future__ import annotations

import re
from typing import Any

from gameday.node.actions import Action, Look
from gameday.node.host import Host, ToolError

DRIVER = "/run/nvidia/driver"  # where the GPU Operator's driver container shows its file system on the node
SAME = 1.0  # W: power limits this close are one


def smi(host: Host, *arguments: str) -> str:
    """The node's own nvidia-smi, or the one in the operator's driver container."""
    try:
        return host.run("nvidia-smi", *arguments)
    except ToolError as error:
        if error.code != 127:
            raise
    return host.run("chroot", DRIVER, "nvidia-smi", *arguments)


class Found(dict[int, list[str]]):
    """Fields of GPUs by index; `lost` are nvidia-smi's sentences about GPUs of which it gives none.

    A GPU that fell off the bus is one line among the others, "Unable to determine the device handle for
    GPU0000:3B:00.0: Unknown Error", and the exit code may be 0 all the same.
    """

    lost: tuple[str, ...] = ()


def query(host: Host, *fields: str) -> Found:
    """Fields of all GPUs. Raises ToolError."""
    text = smi(host, f"--query-gpu=index,{','.join(fields)}", "--format=csv,noheader,nounits")
    found, lost = Found(), []
    for line in filter(str.strip, text.splitlines()):
        index, *cells = [cell.strip() for cell in line.split(",")]
        if index.isdecimal() and len(cells) == len(fields):
            found[int(index)] = cells
        else:
            lost.append(" ".join(line.split()))
    found.lost = tuple(lost)
    return found


def number(text: str) -> float | None:
    """A figure of nvidia-smi's; None for [N/A], [Not Supported], [GPU is lost] and [Unknown Error]."""
    try:
        return float(text)
    except ValueError:
        return None


def _figures(found: Found) -> dict[str, float | None]:
    """The one figure of each GPU that was asked for, None where it can't be read."""
    return {str(gpu): number(row[0]) for gpu, row in found.items()}


def _is(figure: float | None, wanted: float) -> bool | None:
    """Whether a power limit is the wanted one; None where nobody knows."""
    return None if figure is None else abs(figure - wanted) < SAME


def _shown(figure: float | None, unit: str) -> str:
    return "unknown" if figure is None else f"{figure:g} {unit}"


class Throttle(Action):
    """GPUs get less power, or may not clock as high.

    Options: `gpus` (indices; none for all), and one of `watts`, `percent` (of the highest limit) and `clock`
    (MHz). NVIDIA's tools set a range for the clock but don't tell which one was set: going back means none.
    """

    name = "gpu-throttle"
    _reset = False  # the clocks were given back

    def check(self, host: Host) -> list[str]:
        problems = []
        found = query(host, "power.limit", "power.min_limit", "power.max_limit", "clocks.max.sm")
        for gpu in self.options.get("gpus") or sorted(found):
            if gpu not in found:
                there = ", ".join(map(str, found)) or "none"
                lost = "".join(f"; {line}" for line in found.lost)
                problems.append(f"there is no GPU {gpu} (nvidia-smi lists {there}{lost})")
                continue
            limit, lowest, highest, clock = map(number, found[gpu])
            if "clock" in self.options:
                wanted = self.options["clock"]
                if clock is None or not 0 < wanted < clock:
                    highest_clock = f"{clock or 0:g} is its highest"
                    problems.append(f"GPU {gpu}: clocks of {wanted} MHz, where {highest_clock}")
            elif limit is None or lowest is None or highest is None:
                problems.append(f"GPU {gpu}: its power limit cannot be set (nvidia-smi says {found[gpu][0]})")
            elif not lowest <= self._watts(highest) < limit:
                wanted = f"{self._watts(highest):g} W"
                problems.append(f"GPU {gpu}: {wanted} is not within {lowest:g} W and the present {limit:g} W")
        return problems

    def before(self, host: Host) -> dict[str, Any]:
        found = query(host, "power.limit", "power.max_limit")
        gpus = self.options.get("gpus") or sorted(found)
        return {"gpus": {str(g): [number(text) for text in found[g]] for g in gpus}}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        for gpu, (_, highest) in before["gpus"].items():
            if "clock" in self.options:
                smi(host, "-i", gpu, "-lgc", f"0,{self.options['clock']}")
            else:
                smi(host, "-i", gpu, "-pl", f"{self._watts(highest):g}")

    def revert(self, host: Host, before: dict[str, Any]) -> None:
        now = {} if "clock" in self.options else _figures(query(host, "power.limit"))
        failures = []
        for gpu, (limit, highest) in before["gpus"].items():
            try:
                if "clock" in self.options:
                    smi(host, "-i", gpu, "-rgc")
                elif _is(now.get(gpu), self._watts(highest)) is not False:  # else somebody set another one
                    smi(host, "-i", gpu, "-pl", f"{limit:g}")
            except ToolError as error:  # a GPU that is lost keeps no other one throttled
                failures.append(error)
        if failures:
            raise failures[0]
        self._reset = True

    def look(self, host: Host, before: dict[str, Any]) -> Look:
        if "clock" in self.options:
            return self._look_at_clocks(host, before)
        found = query(host, "power.limit")
        now = _figures(found)
        facts = [
            f"GPU {g}: power limit {_shown(now.get(g), 'W')}, was {b[0]:g} W"
            for g, b in before["gpus"].items()
        ]
        ours = [_is(now.get(g), self._watts(b[1])) for g, b in before["gpus"].items()]
        state = "in" if all(ours) else "out" if not any(o is not False for o in ours) else "partial"
        return state, [*facts, *found.lost]

    def _look_at_clocks(self, host: Host, before: dict[str, Any]) -> Look:
        found = query(host, "clocks.sm")
        clocks = {g: _figures(found).get(g) for g in before["gpus"]}
        allowed = self.options["clock"]
        facts = [
            f"GPU {g}: SM clock {_shown(c, 'MHz')}, at most {allowed} allowed" for g, c in clocks.items()
        ]
        facts += found.lost
        if self._reset:
            return "out", [f"GPU {g}: the limit of its clocks was given back" for g in clocks]
        return ("in" if all(c is not None and c <= allowed for c in clocks.values()) else "partial"), facts

    def _watts(self, highest: float) -> float:
        if "watts" in self.options:
            return float(self.options["watts"])
        return round(highest * float(self.options["percent"]) / 100)


class XidLine(Action):
    """The line that NVIDIA's driver would write to the kernel log for an error. There is no way to remove it.

    Options: `xid`, `text`, `gpus`.
    """

    name = "xid-line"
    _over = False

    def check(self, host: Host) -> list[str]:
        known = self._addresses(host)
        return [f"there is no GPU {g} on this node" for g in self.options["gpus"] if known and g not in known]

    def before(self, host: Host) -> dict[str, Any]:
        known = self._addresses(host)
        return {"lines": [self._line(known.get(g, f"0000:{g:02x}:00")) for g in self.options["gpus"]]}

    def apply(self, host: Host, before: dict[str, Any]) -> None:
        for line in before["lines"]:
            host.write("/dev/kmsg", f"<3>{line}\n")

    def revert(self, host: Host, before: dict[str, Any]) -> None:
        self._over = True

    def look(self, host: Host, before: dict[str, Any]) -> Look:
        if self._over:
            return "out", ["the line stays in the kernel log"]
        log = host.run("dmesg")
        seen = [line for line in before["lines"] if line in log]
        state = "in" if len(seen) == len(before["lines"]) else "partial"
        return state, [f"kernel log: {line}" for line in seen] or ["the kernel log does not show the line"]

    def _line(self, address: str) -> str:
        xid, text = self.options["xid"], self.options.get("text") or "unknown"
        return f"NVRM: Xid (PCI:{address}): {xid}, pid='<unknown>', name=<unknown>, {text}"

    def _addresses(self, host: Host) -> dict[int, str]:
        """GPUs' PCI addresses as the driver writes them (0000:3b:00); none where there is no nvidia-smi."""
        try:
            found = query(host, "pci.bus_id")
        except ToolError:
            return {}
        return {g: re.sub(r"^0000(?=\w{4}:)|\.\d$", "", row[0].lower()) for g, row in found.items()}
