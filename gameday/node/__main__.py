"""`python3 -m gameday.node TASK`: the program as a pod runs it. Exit code 0: nothing is left changed.

With another exit code the kubelet starts it again, and it goes on reverting.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gameday.node.deadman import ACCOUNT, Api, DeadMan
from gameday.node.host import ROOT, NodeHost
from gameday.node.memory import FileMemory
from gameday.node.program import Program
from gameday.node.task import Task

MESSAGE = "/dev/termination-log"  # the kubelet puts it into the pod's status
MESSAGE_LIMIT = 4096  # bytes that it takes


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def message(last: dict[str, Any]) -> str:
    """The final state, short enough for the pod's status."""
    last = {k: v[:800] if isinstance(v, str) else v for k, v in last.items()}
    while len(text := json.dumps(last)) > MESSAGE_LIMIT and any(last.get(k) for k in ("facts", "problems")):
        longest = max(("facts", "problems"), key=lambda k: len(json.dumps(last.get(k) or [])))
        last = {**last, longest: last[longest][:-1]}
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="gameday.node", description="Change this node for a while.")
    parser.add_argument("task", type=Path, help="a JSON file: what to do")
    parser.add_argument("--mode", choices=("run", "check", "revert"), help="instead of the task's own")
    parser.add_argument("--root", default=ROOT, help="the node's file system")
    parser.add_argument("--account", default=ACCOUNT, help="the folder of the service account's token")
    parser.add_argument("--message", type=Path, default=Path(MESSAGE), help="where the final state goes too")
    options = parser.parse_args()
    task = Task.read(options.task.read_text(), options.mode)
    switch = DeadMan(task, Api(task.api_server, options.account))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: switch.tell(f"stopped by {signal.Signals(n).name}"))
    memory = FileMemory(options.root, task.id)
    last = Program(task, NodeHost(options.root), memory, switch, say).run()
    with suppress(OSError):
        options.message.write_text(message(last))
    return 0 if last["event"] == "out" else 1


if __name__ == "__main__":
    sys.exit(main())
