"""Runs the torture: `python -m tests.torture --budget SECONDS --seed SEED [--platform NAME]`.

Exits with 1 when anything was left behind, or said wrongly. Without $CI, the figures are written down.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.support import platforms
from tests.support.platforms import Platform
from tests.torture import figures
from tests.torture.arranged import arranged
from tests.torture.figures import PARTS, Figures
from tests.torture.fuzz import fuzz
from tests.torture.hostile import hostile
from tests.torture.kills import Bench, torture
from tests.torture.program import Program
from tests.torture.weather import weathers
from tests.torture.wire import Lines
from tests.torture.world import World

SEED = 8
SHARES = {"kills": 0.4, "weather": 0.45, "fuzz": 0.1, "hostile": 0.05}  # of the time after the start
HOUR = 900  # from this budget on, what is slow is done too
BY_HAND = {"kills": 0.7, "weather": 0.2, "fuzz": 0.07, "hostile": 0.03}  # where there is so much time


def main() -> int:
    options = _options()
    seed = random.SystemRandom().randrange(10**6) if options.seed == "random" else int(options.seed)
    found = Figures(seed, options.budget, options.platform)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, runs would inherit that it is ignored
    began = time.monotonic()
    print(f"torture: seed {seed}, {options.budget} s, platform {options.platform}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="gameday-torture-") as folder,
        platforms.platform(options.platform, Path(folder)) as up,
    ):
        left = began + options.budget - time.monotonic()
        shares = {part: (BY_HAND if options.budget >= HOUR else SHARES)[part] for part in options.only}
        for part in options.only:
            started = time.monotonic()
            until = started + left * shares[part] / sum(shares.values())
            try:
                run_part(part, up, Path(folder) / part, found, until, slow=options.budget >= HOUR)
            except AssertionError as error:  # the world could not be mended after a case that failed
                found.add(part, "the world itself", (), (str(error)[-1000:],), "cannot be gone on from")
            found.seconds[part] = time.monotonic() - started
            _say(found, part)
    if not os.environ.get("CI"):
        figures.save(found)
    for story in found.broken:
        print(f"BROKEN {story}")
    print(f"torture: {len(found.broken)} broken after {time.monotonic() - began:.0f} s")
    return 1 if found.broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--budget", type=int, default=360, help="seconds for everything")
    parser.add_argument("--seed", default=str(SEED), help="a number, or `random`")
    parser.add_argument("--platform", choices=("cluster", "sandbox"), default="cluster")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone")
    options = parser.parse_args()
    options.only = options.only or list(PARTS)
    return options


def run_part(part: str, up: Platform, folder: Path, found: Figures, until: float, *, slow: bool) -> None:
    """One part of the torture, until its time is up."""
    folder.mkdir(parents=True, exist_ok=True)
    with bench(up, folder, part) as ready:
        match part:
            case "kills":
                torture(ready, found, until, slow=slow)
            case "weather":
                weathers(found, up, ready, until, slow=slow)
            case "fuzz":
                fuzz(found, ready, until)
            case "hostile":
                hostile(found, ready, until)


@contextmanager
def bench(up: Platform, folder: Path, part: str) -> Iterator[Bench]:
    """The platform with lines to it, ready for the cases of a part; gone when the block ends."""
    world = World(up.kubeconfig, up.control_url, up.slurm_url, up.slurm_token)
    lines = Lines()
    try:
        over = {"KUBECONFIG": str(lines.kubeconfig(up.kubeconfig, folder / "kubeconfig"))}
        over["GAMEDAY_SLURM_URL"] = lines.to(up.slurm_url)
        program = Program(up, folder / "over", over)
        ready = Bench(world, lines, program, Program(up, folder / "past"), folder)
        with arranged(world) if part == "kills" else nullcontext():
            ready.settle()
            yield ready
    finally:
        lines.close()


def _say(found: Figures, part: str) -> None:
    for name, line in sorted(found.parts.get(part, {}).items()):
        print(f"  {part:8} {name:28} " + "  ".join(f"{k} {v}" for k, v in vars(line).items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
