"""What `scontrol` answers in the sandbox's controller pod: JSON lists, updates, requeues."""

from __future__ import annotations

import json

from gameday.platform.objects import Object
from gameday.sandbox.facts import annotations_of
from gameday.sandbox.fleet.slurm.controller import Controller, Refusal
from gameday.sandbox.fleet.slurm.rest import AWAY

NAMESPACE = "slurm"
RETURNS = "sandbox.gameday.dev/return-to-service"  # on the controller's pod: what its slurm.conf says


class Scontrol:
    """Called with the pod it is run in, and the command line."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def __call__(self, pod: Object, argv: list[str]) -> tuple[int, str, str]:
        if pod["metadata"]["namespace"] != NAMESPACE:
            return 127, "", "scontrol: command not found\n"
        if not self._controller.on:
            return 1, "", f"slurm_load error: {AWAY.text}\n"
        try:
            if argv[1:] == ["show", "config"]:
                return 0, f"ReturnToService         = {annotations_of(pod).get(RETURNS, '1')}\n", ""
            return 0, await self._answer([a for a in argv[1:] if a != "--json"]), ""
        except Refusal as no:
            return 1, "", f"slurm_update error: {no.text}\n"

    async def _answer(self, words: list[str]) -> str:
        lists = {
            "nodes": self._controller.nodes,
            "jobs": self._controller.jobs,
            "partitions": self._controller.partitions,
        }
        if words[:1] == ["show"] and words[-1] in lists:
            return json.dumps({words[-1]: lists[words[-1]]()}, indent=2) + "\n"
        options = dict(w.partition("=")[::2] for w in words[1:])
        if words[:1] == ["update"] and "nodename" in options:
            self._controller.update_node(
                options["nodename"], options.get("state", "").upper(), options.get("reason", "")
            )
        elif words[:1] == ["update"] and "partitionname" in options:
            self._controller.update_partition(options["partitionname"], options.get("state", "").upper())
        elif words[:1] == ["requeue"] and len(words) == 2:
            await self._controller.requeue(int(words[1]) if words[1].isdigit() else 0)
        else:
            raise Refusal(1, f"invalid keyword: {' '.join(words)}")
        return ""
