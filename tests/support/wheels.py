"""A Python environment of its own with a package in it, without asking any network."""

from __future__ import annotations

import site
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path


def environment_with(folder: Path, source: Path | None = None) -> Path:
    """The interpreter of a new environment that sees what this one has, and a package of its own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    here = [p for p in site.getsitepackages() if Path(p).is_dir()]
    (packages / "outer.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in here))
    if source is not None:
        wheel = build(source, folder)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        alone = ["--no-deps", "--no-index", "--disable-pip-version-check"]
        subprocess.run([*pip, *alone, str(wheel)], check=True)
    return python


def build(source: Path, folder: Path) -> Path:
    """The wheel of a package of plain modules, as setuptools would build it (PEP 427)."""
    project = tomllib.loads((source / "pyproject.toml").read_text())
    called, version = project["project"]["name"], project["project"]["version"]
    name = called.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    entries = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())
        for group, found in project["project"]["entry-points"].items()
    )
    files = {
        **{f"{m}.py": (source / f"{m}.py").read_text() for m in project["tool"]["setuptools"]["py-modules"]},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {called}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entries,
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel
