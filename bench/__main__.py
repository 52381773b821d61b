"""Runs the benchmark: `python -m bench [ROW]...` prints a table and writes bench/results/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import bench.rows
from bench.measured import Measured

RESULTS = Path(__file__).with_name("results") / "bench.json"


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(bench.rows.__path__))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"which to run (default all): {', '.join(names)}"
    )
    chosen = parser.parse_args().rows or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    results: dict[str, list[Measured]] = {}
    for name in chosen:
        try:
            results[name] = _run(name)
        except Exception:  # the other rows are still worth their time
            print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    _save(results)
    _show(results)
    every = [m for measured in results.values() for m in measured]
    return 0 if len(results) == len(chosen) and all(m.reached for m in every) else 1


def _run(name: str) -> list[Measured]:
    row = importlib.import_module(f"bench.rows.{name}")
    title = (row.__doc__ or name).splitlines()[0]
    print(f"{name}: {title}", file=sys.stderr, flush=True)
    measured: list[Measured] = asyncio.run(row.measure())
    return measured


def _save(results: dict[str, list[Measured]]) -> None:
    """Rows that did not run this time keep their last figures."""
    saved: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    for name, measured in results.items():
        saved[name] = {"at": now, "machine": machine, "lines": [m.to_data() for m in measured]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(saved, indent=2) + "\n")


def _show(results: dict[str, list[Measured]]) -> None:
    table = Table(title="gameday beside the others, in one run on this machine")
    for column in ("what", "gameday", "others (how many times ours)", "to reach", ""):
        table.add_column(column)
    for m in (m for measured in results.values() for m in measured):
        others = "\n".join(
            f"{name} {_figure(figure, m.unit)} ({m.ratios[name]:g}x)" for name, figure in m.others.items()
        )
        mark = "[green]reached[/]" if m.reached else "[red]not reached[/]"
        table.add_row(m.what, _figure(m.ours, m.unit), others or "—", m.reach, mark)
    Console().print(table)


def _figure(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


if __name__ == "__main__":
    sys.exit(main())
