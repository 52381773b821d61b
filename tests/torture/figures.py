"""What was tried and what survived: bench/results/torture.json, and its table in the README.

`python -m tests.torture.figures` writes the table anew from the file.
"""

from __future__ import annotations

import json
import os
import platform as machine
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from tests.support.platforms import ROOT

RESULTS = ROOT / "bench" / "results" / "torture.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- generated: torture -->", "<!-- end of generated -->"
PARTS = ("kills", "weather", "fuzz", "hostile")
PLATFORMS = {
    "cluster": "real etcd, API server, scheduler and controllers; simulated nodes",
    "sandbox": "the embedded sandbox",
}


Told = tuple[str, ...]


@dataclass
class Line:
    """One row: a fault, a kind of weather, a kind of input."""

    tried: int = 0
    survived: int = 0
    left: int = 0  # cases after which something was not as before
    refused: int = 0  # said plainly, before anything was touched
    wrong: int = 0  # a false exit code, a stack trace, too long, too large

    def add(self, left: int, wrong: int, refused: int = 0) -> None:
        """One more try."""
        self.tried += 1
        self.left += bool(left)
        self.wrong += bool(wrong)
        self.refused += bool(refused)
        self.survived += not (left or wrong)


@dataclass
class Figures:
    """All rows of a session, and the shortest story of each that did not survive."""

    seed: int
    budget: int
    platform: str
    parts: dict[str, dict[str, Line]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of each part
    killed: Counter[str] = field(default_factory=Counter)  # runs, recoveries
    not_run: dict[str, str] = field(default_factory=dict)
    moments: dict[str, Any] = field(default_factory=dict)  # case -> how often there is a moment to die
    broken: list[str] = field(default_factory=list)

    def add(self, part: str, name: str, left: Told, wrong: Told, story: str, refused: bool = False) -> None:
        """One more try of a row; `story` says what was done, should it not have survived."""
        self.parts.setdefault(part, {}).setdefault(name, Line()).add(len(left), len(wrong), refused)
        if left or wrong:
            told = " | ".join([*left[:4], *(w[:900] for w in wrong[:2])])
            self.broken.append(f"{part}: {name}: {story}: {told}")

    def of(self, part: str) -> dict[str, Any]:
        """A part as the file has it; each says itself when and on what it was measured."""
        return {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seed": self.seed,
            "budget": self.budget,
            "seconds": round(self.seconds.get(part, 0)),
            "platform": self.platform,
            "versions": {"gameday": version("gameday"), "python": machine.python_version(), **_kubernetes()},
            "machine": {"cores": os.cpu_count(), "system": machine.platform()},
            **({"killed": self._killed(), "moments": self.moments} if part == "kills" else {}),
            "lines": {name: vars(line) for name, line in sorted(self.parts[part].items())},
            "broken": [story for story in self.broken if story.startswith(f"{part}: ")],
            "notRun": {what: why for what, why in self.not_run.items() if what.startswith(f"{part}: ")},
        }

    def _killed(self) -> dict[str, int]:
        return {what: self.killed[what] for what in ("runs", "recoveries")}


def _kubernetes() -> dict[str, str]:
    """The version that the control plane was built from."""
    text = (ROOT / "tests" / "controlplane" / "go.mod").read_text()
    found = re.search(r"k8s\.io/kubernetes v(\S+)", text)
    return {"kubernetes": found[1]} if found else {}


def save(figures: Figures) -> None:
    """Write the parts that ran into the file, and the README's table from it."""
    data = saved() | {part: figures.of(part) for part in figures.parts}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    README.write_text(with_table(README.read_text()))


def saved() -> dict[str, Any]:
    """The committed file; {} when there is none."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def with_table(text: str) -> str:
    """The README with the table as the file says."""
    whole = f"{BEGIN}\n{table(saved())}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: whole, text, flags=re.DOTALL)


def table(data: dict[str, Any]) -> str:
    """One row for each part, its sum; and one for each row of a part that did not survive."""
    if not data:
        return "Not measured yet."
    lines = [
        "| what | tried | survived | left behind | refused | said wrongly | measured |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in [p for p in PARTS if p in data]:
        each, of = data[part]["lines"], data[part]
        where = PLATFORMS[of["platform"]]
        on = f"{where}, {of['at'][:10]}, seed {of['seed']}, {of['seconds'] // 60} min"
        total = {key: sum(line[key] for line in each.values()) for key in KEYS}
        lines.append(_row(TITLES[part].format(n=len(each), **of.get("killed", {})), total, on))
        bad = {name: line for name, line in each.items() if line["tried"] > line["survived"]}
        lines += [_row(f"of these, {name}", line, "") for name, line in bad.items()]
    return "\n".join(lines)


def _row(what: str, line: dict[str, int], on: str) -> str:
    return "| " + " | ".join([what, *(str(line[key]) for key in KEYS), on]) + " |"


KEYS = ("tried", "survived", "left", "refused", "wrong")
TITLES = {
    "kills": "kill -9 of {runs} runs and {recoveries} recoveries of {n} faults",
    "weather": "{n} kinds of bad weather",
    "fuzz": "{n} kinds of fuzzed input",
    "hostile": "hostile text, in {n} places",
}


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
