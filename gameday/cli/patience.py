"""A word for whoever waits: a command that asks a cluster is not silent for long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gameday.inert import one_line

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

SILENT = 2.0  # seconds


@contextmanager
def asking(kube: Kube) -> Iterator[None]:
    """Says on stderr which cluster is asked, where the context lasts for longer than SILENT."""
    text = one_line(f"gameday: still asking {kube.context} ({kube.server}) …")
    saying = asyncio.get_running_loop().call_later(SILENT, lambda: print(text, file=sys.stderr, flush=True))
    try:
        yield
    finally:
        saying.cancel()
