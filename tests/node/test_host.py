"""The node's own tools, as the program on a node runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gameday.node import host
from gameday.node.host import NodeHost, ToolError
from tests.support.polling import until

pytestmark = pytest.mark.fast


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_tool_says() -> None:
    assert NodeHost("/").run("echo", "well") == "well\n"
    with pytest.raises(ToolError, match="ended with 3: no such link") as failed:
        NodeHost("/").run("sh", "-c", "echo no such link >&2; exit 3")
    assert failed.value.code == 3
    with pytest.raises(ToolError, match="the node has no no-such-tool"):
        NodeHost("/").run("no-such-tool")


def test_a_tool_that_does_not_end_takes_what_it_started_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, a hanging `nvidia-smi` of a hanging script would go on, and change what was put back."""
    monkeypatch.setattr(host, "TOOL_WITHIN", 0.5)
    kept = tmp_path / "pid"
    with pytest.raises(ToolError, match="did not end within") as hung:
        NodeHost("/").run("sh", "-c", f"sleep 600 & echo $! > {kept}; wait")
    assert hung.value.code == 124
    until(lambda: not runs(int(kept.read_text())), "what the tool started is gone")
