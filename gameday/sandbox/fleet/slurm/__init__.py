"""Slurm on the sandbox's platform: a simulated slurmctld, slurmrestd, scontrol, and the glue to Kubernetes.

Nodes have the names that they have in Kubernetes; the job `trainer` is what the training pods are for Slurm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from gameday.sandbox.cache import Cache
from gameday.sandbox.fleet.exposition import Family
from gameday.sandbox.fleet.slurm.controller import Controller
from gameday.sandbox.fleet.slurm.glue import Glue
from gameday.sandbox.fleet.slurm.rest import SlurmRestd
from gameday.sandbox.fleet.slurm.scontrol import Scontrol
from gameday.sandbox.fleet.slurm.tokens import Tokens
from gameday.sandbox.recorder import Recorder

JOB = "slurm-exporter"  # its metrics page
_NODE_STATES = ("idle", "mixed", "allocated", "draining", "drained", "down")
_JOB_STATES = ("pending", "running")


class Slurm:
    """The parts. `run` keeps the two schedulers together; whoever starts the fleet serves `restd`."""

    def __init__(self, cache: Cache, recorder: Recorder, lives: Callable[[str], bool]) -> None:
        self.tokens = Tokens()
        self.controller = Controller(cache, lives)
        self.restd = SlurmRestd(self.controller, self.tokens)
        self.scontrol = Scontrol(self.controller)
        self._glue = Glue(cache, recorder, self.controller)

    async def run(self) -> None:
        await self._glue.run()

    async def switch(self, on: bool) -> None:
        """Let slurmctld go away, or come back; its state is kept."""
        self.controller.on = on

    def metrics(self) -> Iterator[Family]:
        """As Slurm's exporters tell it, each state that sinfo and squeue know."""
        nodes = Family("slurm_nodes", "gauge", "Nodes by state, as sinfo says it.")
        counted = Counter(_by_sinfo(self.controller.states(name)) for name in self.controller.names())
        for state in sorted({*_NODE_STATES, *counted}):
            nodes.add(counted[state], state=state)
        jobs = Family("slurm_jobs", "gauge", "Jobs by state, as squeue says it.")
        waiting = Counter(j["job_state"][0].lower() for j in self.controller.jobs())
        for state in sorted({*_JOB_STATES, *waiting}):
            jobs.add(waiting[state], state=state)
        yield from (nodes, jobs)


def _by_sinfo(states: list[str]) -> str:
    """A node's base state and flags in the one word of sinfo: a drain that waits for jobs is `draining`."""
    base, *flags = (state.lower() for state in states)
    if "drain" in flags:
        return "draining" if base == "mixed" else "drained"
    return base
