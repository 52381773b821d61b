"""Server-side apply."""

from __future__ import annotations
from typing import Any
from gameday.sandbox.apiserver.objects import Objects, Write
from gameday.sandbox.apiserver.routes import Request
from gameday.sandbox.apiserver.store import Stored


def apply(objects: Objects, request: Request, body: Any, how: Write) -> tuple[bool, Stored]:
    raise NotImplementedError
