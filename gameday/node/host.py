"""The node as an action may touch it: its own tools, run in its own file system, and its files."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Protocol

ROOT = "/proc/1/root"  # the node's file system, as a pod with the node's PID namespace sees it
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOL_WITHIN = 30.0  # seconds


class ToolError(Exception):
    """A tool of the node failed: which, with which exit code, and what it said, in one sentence.

    `code` is the exit code; 127 says that there is no such tool, 124 that it did not end.
    """

    def __init__(self, argv: tuple[str, ...], code: int, said: str) -> None:
        self.argv, self.code, self.said = argv, code, " ".join(said.split())
        super().__init__(f"`{shlex.join(argv)}` ended with {code}: {self.said or 'it said nothing'}")


class Host(Protocol):
    """All that an action may touch. The sandbox has another one."""

    def run(self, *argv: str) -> str:
        """The text that a tool wrote to stdout. Raises ToolError."""
        ...

    def read(self, path: str) -> str:
        """A file's text. Raises OSError."""
        ...

    def write(self, path: str, text: str) -> None:
        """Write a text to a file that is there, as in sysfs. Raises OSError."""
        ...


class NodeHost:
    """The node itself, below `root`; only root may change into another one."""

    def __init__(self, root: str = ROOT) -> None:
        self.root = root.rstrip("/") or "/"

    def run(self, *argv: str) -> str:
        try:
            tool = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": PATH, "LC_ALL": "C", "HOME": "/root"},
                cwd="/",
                preexec_fn=None if self.root == "/" else self._enter,
                start_new_session=True,  # a signal for the program is none for the tool that it waits for
            )
        except FileNotFoundError:
            raise ToolError(argv, 127, f"the node has no {argv[0]}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise ToolError(argv, 126, f"it could not be started below {self.root}: {error}") from None
        with tool:
            try:
                out, err = tool.communicate(timeout=TOOL_WITHIN)
            except subprocess.TimeoutExpired:
                raise ToolError(argv, 124, f"it did not end within {TOOL_WITHIN:g} s") from None
            finally:
                if tool.returncode is None:
                    os.killpg(tool.pid, signal.SIGKILL)  # and what it started, which would go on by itself
        if tool.returncode != 0:
            raise ToolError(argv, tool.returncode, (err or out).decode(errors="replace"))
        return out.decode(errors="replace")

    def read(self, path: str) -> str:
        return self._below(path).read_text(errors="replace")

    def write(self, path: str, text: str) -> None:
        with os.fdopen(os.open(self._below(path), os.O_WRONLY | os.O_TRUNC), "w") as file:  # never a new file
            file.write(text)

    def _below(self, path: str) -> Path:
        return Path(self.root, path.lstrip("/"))

    def _enter(self) -> None:
        os.chroot(self.root)
        os.chdir("/")
