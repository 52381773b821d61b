"""Asking a person at the terminal, who may not be there, and may stop everything instead of answering."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


async def asked(console: Console, question: str) -> bool:
    """Whether the person at the terminal says yes; without a terminal, nobody does."""
    if not sys.stdin.isatty():
        console.print("not approved: no terminal to ask on; approve with --yes", style="yellow")
        return False
    console.print(f"{question} [y/N] ", end="")
    line = ""
    try:
        line = await _line()
    finally:
        if not line.endswith("\n"):  # Ctrl-C and Ctrl-D leave the cursor behind the question
            console.print()
    return line.strip().lower() in ("y", "yes")


async def _line() -> str:
    """A line from the terminal, in a way that Ctrl-C ends; a thread in `input` would go on."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sys.stdin, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()
