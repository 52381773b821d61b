"""Makes a root directory with the Slurm of a newer Debian, for what this machine's own Slurm can't do.

It lies outside the tree, as the control plane does. `python -m tests.support.slurm_root` makes it where it
is not there yet, with debootstrap, from the mirror that apt is configured with (half a minute, 300 MB).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

RELEASE = "trixie"
PACKAGES = ("slurmctld", "slurmd", "slurmrestd", "slurm-client", "slurm-wlm-jwt-plugin", "munge")
PLACE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gameday" / f"slurm-{RELEASE}"


def find() -> Path | None:
    """The root directory, if it was made."""
    return PLACE if (PLACE / "usr/sbin/slurmrestd").exists() else None


def make() -> Path:
    """The root directory, made when it is not there. Raises CalledProcessError; OSError without a mirror."""
    if (found := find()) is not None:
        return found
    half = PLACE.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    wanted = f"--include={','.join(PACKAGES)}"
    subprocess.run(["debootstrap", "--variant=minbase", wanted, RELEASE, str(half), _mirror()], check=True)
    half.rename(PLACE)
    return PLACE


def _mirror() -> str:
    """Debian's mirror of this machine. A machine of another distribution has none; its own Slurm is used."""
    sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(path.read_text() for path in sources)
    found = re.search(r"https?://\S+/debian/?(?=\s)", text + "\n")
    if found is None:
        raise OSError("no mirror of Debian in /etc/apt: the tests with a newer Slurm will be skipped")
    return found[0]


if __name__ == "__main__":
    try:
        print(make())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"slurm: {error}", file=sys.stderr)
