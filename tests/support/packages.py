"""A package of one module, installed as pip would install it: its faults, operations, probes and checks."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.platforms import ROOT


def package(folder: Path, module: str, text: str, entries: str, version: str = "1.0") -> dict[str, str]:
    """Install a module called so, with these entry points; the environment of a process that sees it.

    `folder` is for packages alone, and belongs on the path of whoever is to find them.
    """
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    name = module.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries)
    if text:
        (folder / f"{module}.py").write_text(text)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
