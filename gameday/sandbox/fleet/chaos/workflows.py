"""Chaos Mesh's Workflow: experiments one after another or side by side, each until its deadline.

Upstream keeps a WorkflowNode for each step; here a task walks through the templates and only the
experiments themselves are objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.facts import deleting, now, owner_reference, suffix
from gameday.sandbox.manifests import CHAOS, field_of
from gameday.sandbox.recorder import Recorder

COMPONENT = "workflow-entry"


class Workflows:
    """One task for each workflow, ended when the workflow is deleted; its children go with their owner."""

    group: asyncio.TaskGroup

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def reconcile(self, key: Key, workflow: Object | None) -> None:
        task = self._tasks.get(key)
        if workflow is None or deleting(workflow):
            if task is not None:
                task.cancel()
                del self._tasks[key]
        elif task is None and not (workflow.get("status") or {}).get("endTime"):
            self._tasks[key] = self.group.create_task(self._run(workflow))

    async def _run(self, workflow: Object) -> None:
        templates = {t["name"]: t for t in workflow["spec"]["templates"]}
        entry = f"{workflow['spec']['entry']}-{suffix()}"
        try:
            await self._write(workflow, {"startTime": now(), "entryNode": entry}, accomplished=False)
            self._recorder.event(
                workflow, COMPONENT, "EntryCreated", f"entry node created, entry node {entry}"
            )
            await self._step(workflow, templates, workflow["spec"]["entry"])
            await self._write(workflow, {"endTime": now()}, accomplished=True)
            self._recorder.event(workflow, COMPONENT, "WorkflowAccomplished", "workflow accomplished")
        except (PlatformError, KeyError) as error:
            text = f"failed to spawn new entry node of workflow, entry: {entry} ({error})"
            self._recorder.event(workflow, COMPONENT, "InvalidEntry", text, warning=True)

    async def _step(self, workflow: Object, templates: Mapping[str, Any], name: str) -> None:
        template = templates[name]
        kind, children = template["templateType"], template.get("children") or []
        deadline = parse_duration(template["deadline"]) if template.get("deadline") else None
        if kind in CHAOS or kind == "Schedule":
            await self._chaos(workflow, template, deadline)
            return
        try:
            async with asyncio.timeout(deadline):
                if kind == "Serial":
                    for child in children:
                        await self._step(workflow, templates, child)
                elif kind == "Parallel":
                    async with asyncio.TaskGroup() as group:
                        for child in children:
                            group.create_task(self._step(workflow, templates, child))
                elif kind == "Suspend":
                    await asyncio.Event().wait()
        except TimeoutError:
            return

    async def _chaos(self, workflow: Object, template: Object, deadline: float | None) -> None:
        """An experiment exists from now to its deadline; without one, for as long as its workflow."""
        kind = template["templateType"]
        child = {
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": kind,
            "metadata": {
                "name": f"{template['name']}-{suffix()}",
                "namespace": workflow["metadata"]["namespace"],
                "labels": {
                    "chaos-mesh.org/workflow": workflow["metadata"]["name"],
                    "chaos-mesh.org/controlled-by": template["name"],
                },
                "ownerReferences": [owner_reference(workflow)],
            },
            "spec": template["schedule" if kind == "Schedule" else field_of(kind)],
        }
        created = await self._cache.kube.create(child)
        name = created["metadata"]["name"]
        self._recorder.event(workflow, COMPONENT, "ChaosCRCreated", f"chaos CR {name} created")
        try:
            if deadline is None:
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(deadline)
        finally:
            await asyncio.shield(self._cache.delete(created))
        self._recorder.event(workflow, COMPONENT, "ChaosCRDeleted", f"chaos CR {name} deleted")

    async def _write(self, workflow: Object, status: Object, *, accomplished: bool) -> None:
        status["conditions"] = [
            {"type": "Scheduled", "status": "True", "reason": ""},
            {
                "type": "Accomplished",
                "status": str(accomplished),
                "reason": "WorkflowAccomplished" * accomplished,
            },
        ]
        await self._cache.kube.patch(Ref.of(workflow), {"status": status}, "merge", subresource="status")
