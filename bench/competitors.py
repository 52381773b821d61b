"""Installs the tools that gameday is compared with, in an environment of their own outside the tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.go_module import cache_root

PACKAGES = ("chaostoolkit==1.19.0", "chaostoolkit-kubernetes==0.39.0")


def chaostoolkit() -> Path:
    """The folder with `python` and `chaos`; installed at the first call."""
    folder = cache_root() / "-".join(["bench", *PACKAGES]).replace("==", "-")
    done = folder / ".installed"
    if not done.exists():
        print(f"installing {' '.join(PACKAGES)} in {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *PACKAGES], check=True)
        done.touch()
    return folder / "bin"
