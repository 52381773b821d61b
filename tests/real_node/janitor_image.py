"""The image of the janitor's pods, made as `deploy/Dockerfile` makes it but from what is installed here.

No registry is needed: Debian's Python of the tests' own image, and this environment's gameday with the
packages that pyproject names for it.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
import tarfile
from pathlib import Path

from tests.controlplane import images
from tests.support.platforms import ROOT

NAME = "docker.io/library/gameday:0.1.0"
FOLDER = "opt/gameday"


def write(path: Path) -> None:
    """Write the archive, about 300 MB, as `docker save` does."""
    config = {
        "Entrypoint": ["/usr/bin/python3", "-m", "gameday"],
        "Env": [f"PYTHONPATH=/{FOLDER}", "PATH=/usr/bin:/bin"],
    }
    images.write_archive(path, NAME, images.layer_of(images.build()), _layer(), config=config)


def _layer() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as layer:
        layer.add(ROOT / "gameday", f"{FOLDER}/gameday")
        for distribution in _needed("gameday"):
            for file in distribution.files or ():
                path = Path(str(distribution.locate_file(file)))
                if ".." not in file.parts and path.is_file():
                    layer.add(path, f"{FOLDER}/{file}", recursive=False)
    return output.getvalue()


def _needed(*wanted: str) -> list[importlib.metadata.Distribution]:
    """The installed distributions that these need, without extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    names = list(wanted)
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or platform
        names += [
            re.split(r"[^\w.-]", need)[0] for need in found[name].requires or () if "extra ==" not in need
        ]
    return list(found.values())
