"""A signal may come at any moment: also while the main thread is about to wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast

PROGRAM = """
import signal
from gameday.node.deadman import Api, DeadMan
from gameday.node.task import Task

for n in range(3000):
    switch = DeadMan(Task("a-task", "nothing"), Api("http://127.0.0.1:1"))
    signal.signal(signal.SIGALRM, lambda *_: switch.tell("a signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.00002 + n % 100 / 200_000)
    while not switch.why:
        switch.wait(0.00001)
"""


def test_a_signal_at_any_moment_of_a_wait_stops_it() -> None:
    """Told so by the handler, whatever lock the thread that it interrupts may hold."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
