"""Defects of ours: an exit code of their own, one sentence for the user, and the trace in a file."""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from pathlib import Path

from gameday.masking import clip, mask_text

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: none of those that say how the cluster is
TRACE = "internal-error.txt"
WITHIN = 3.0  # seconds


def keep_trace(error: BaseException, folder: Path | None = None) -> str:
    """Write the trace into the folder, or into a temporary one. Never raises, and waits for no hung disk.

    Returns a clause for the sentence: where the trace is.
    """
    where: list[str] = []
    thread = threading.Thread(target=lambda: where.append(_keep(error, folder)), daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return "there is no memory to write the trace"
    thread.join(WITHIN)
    return where[0] if where else "the trace could not be written in time"


def _keep(error: BaseException, folder: Path | None) -> str:
    text = mask_text("".join(traceback.format_exception(error)))
    for here in (folder, None):
        try:
            path = (here or _temporary()) / TRACE
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return f"the trace is in {path}"
    return f"the trace could be written nowhere; its last line is: {text.strip().splitlines()[-1]}"


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix=f"gameday-{os.getpid()}-"))


def sentence(error: BaseException) -> str:
    """The defect in a few words; for people, and masked."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {clip(words[0], 300)}" if words else type(error).__name__
