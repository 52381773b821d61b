"""A network namespace as a node: this machine's own kernel and iproute2, and none of its own links."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gameday.node.host import NodeHost, ToolError
from tests.support.platforms import ROOT


class Namespace(NodeHost):
    """The real host below "/", but for the network, which is the namespace's."""

    def __init__(self, name: str) -> None:
        super().__init__("/")
        self.name = name

    def run(self, *argv: str) -> str:
        return super().run("ip", "netns", "exec", self.name, *argv)

    def read(self, path: str) -> str:
        if not path.startswith("/sys/"):
            return super().read(path)
        try:
            return self.run("cat", path)
        except ToolError as error:
            raise OSError(str(error)) from None

    def ip(self, *argv: str) -> Any:
        """What `ip -json` says; asked by another process than the one under test."""
        asked = ["ip", "-n", self.name, "-json", "-details", *argv]
        return json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout or "[]")

    def set(self, line: str) -> None:
        subprocess.run(["ip", "-n", self.name, *line.split()], check=True)

    def link(self, name: str) -> dict[str, Any]:
        return dict(self.ip("link", "show", "dev", name)[0])


def possible() -> str:
    """Why there can be no namespace here; "" when there can."""
    subprocess.run(
        [ROOT / ".ci/ensure", "iproute2", "faults on network links", "tc"], check=True, capture_output=True
    )
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no network namespace can be made here: {tried.stderr.strip()}"


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace of its own with lo, ending with the block; links in it go with it."""
    name = f"gameday-{os.getpid()}-{os.urandom(2).hex()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name)
        made.set("link set lo up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        assert not Path("/run/netns", name).exists()
