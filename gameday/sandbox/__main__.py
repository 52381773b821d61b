"""Runs a sandbox until it is told to stop: `python -m gameday.sandbox --directory DIRECTORY`.

Prints one JSON line on stdout when everything is ready: kubeconfig, context, api, prometheus, metrics,
control, gpud, slurm (slurmrestd's address), slurmToken, directory. Progress goes to stderr. Ends on SIGTERM
or SIGINT, or with the process named by --parent-pid. What can be switched while it runs (Prometheus, the API
server, slurmctld, nodes) is in web.py; how the API can be made to fail, in apiserver/failures.py.

Annotations that change how things behave, all in sandbox.gameday.dev/:
    start-seconds    on a pod: the time from its start to Ready
    stop-seconds     on a pod: what its program takes to end
    no-backoff       on a Job's pod, "true": it is replaced at once, however often it was killed
    static-pods      on a node: names of static pods, whose mirror pods come back when they are deleted
    no-chaos-daemon  on a node, as a label: Chaos Mesh's daemon doesn't run there
    kernel-without   on a node: queueing disciplines that its kernel lacks, as netem
    stuck            on a Chaos Mesh experiment, "true": its recovery fails for as long as it is there
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from gameday.platform.errors import PlatformError
from gameday.sandbox.fleet import SIMULATED
from gameday.sandbox.platform import FEWEST_NODES, NotReady, Options, platform
from gameday.sandbox.prometheus import PrometheusError

EXPECTED = (PlatformError, PrometheusError, NotReady)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gameday.sandbox", description="A simulated GPU platform."
    )
    parser.add_argument(
        "--directory", type=Path, required=True, help="for the kubeconfig and Prometheus' data"
    )
    parser.add_argument(
        "--nodes", type=int, default=8, help=f"GPU nodes, at least {FEWEST_NODES} (default 8)"
    )
    parser.add_argument(
        "--kubeconfig", type=Path, help="put the fleet into this cluster instead of an own API"
    )
    parser.add_argument("--context", help="the context of that kubeconfig")
    parser.add_argument("--no-prometheus", action="store_true", help="start without Prometheus")
    parser.add_argument("--no-workloads", action="store_true", help="only nodes, kubelets and Chaos Mesh")
    parser.add_argument(
        "--without",
        nargs="+",
        choices=SIMULATED,
        default=[],
        help="controllers that are not simulated, because the cluster has the real ones",
    )
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    arguments = parser.parse_args()
    if arguments.nodes < FEWEST_NODES and not arguments.no_workloads:
        parser.error(f"the workloads need at least {FEWEST_NODES} GPU nodes (--nodes {FEWEST_NODES})")
    logging.basicConfig(level=os.environ.get("SANDBOX_LOG", "WARNING"), format="%(name)s: %(message)s")
    options = Options(
        directory=arguments.directory.resolve(),
        nodes=arguments.nodes,
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        prometheus=not arguments.no_prometheus,
        workloads=not arguments.no_workloads,
        without=frozenset(arguments.without),
    )
    try:
        asyncio.run(_serve(options, arguments.parent_pid))
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        expected, other = group.split(EXPECTED)
        if other is not None or expected is None:
            raise
        for leaf in _leaves(expected):
            print(f"error: {leaf}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: Options, parent: int | None) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if parent is not None and not _watch(parent, ending):
        return

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    serving = asyncio.create_task(_until(options, ending, say))
    stopped = asyncio.create_task(ending.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not serving.done() and not serving.cancelling():
        serving.cancel()
    try:
        await serving
    except asyncio.CancelledError:
        return


async def _until(options: Options, ending: asyncio.Event, say: object) -> None:
    async with platform(options, say) as described:  # type: ignore[arg-type]
        print(json.dumps(described), flush=True)
        await ending.wait()


def _watch(parent: int, ending: asyncio.Event) -> bool:
    """Set `ending` when a process is gone; False when it is gone already."""
    try:
        handle = os.pidfd_open(parent)
    except ProcessLookupError:
        return False
    asyncio.get_running_loop().add_reader(handle, ending.set)
    return True


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


if __name__ == "__main__":
    sys.exit(main())
