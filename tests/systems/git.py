"""Git repositories that tests write, and Argo CD reads by file:// addresses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from gameday.platform.objects import Object

WHO = ("-c", "user.name=tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgsign=false")


class Repository:
    """A repository with a branch `main`; `away` makes it unreachable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def __call__(self, *arguments: Any) -> str:
        command = ["git", *WHO, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: list[Object]) -> str:
        """Write folders of manifests as they are to be from now on; the commit's SHA."""
        for name, objects in files.items():
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name / "manifests.yaml").write_text(yaml.safe_dump_all(objects))
        self("add", "--all")
        self("commit", "--quiet", "--allow-empty", "--message", "test")
        return self("rev-parse", "HEAD")
