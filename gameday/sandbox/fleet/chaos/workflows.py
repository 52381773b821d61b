"""Chaos Mesh's Workflow: experiments one after another or side by side, each until its deadline.

A WorkflowNode stands for each step, as upstream; here a task walks through the templates, where upstream each
kind of node has a controller. Seen on upstream's controllers, and so here: a new entry node whenever a
Workflow has none, be it aborted or half deleted; an abort ends the nodes, and with them what they made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref, is_true
from gameday.sandbox.cache import Cache, Key
from gameday.sandbox.facts import annotations_of, deleting, now, owner_reference, suffix
from gameday.sandbox.manifests import CHAOS, field_of
from gameday.sandbox.recorder import Recorder

COMPONENT = "workflow-entry"
ABORT = "workflow.chaos-mesh.org/abort"
FLOW_LABEL, PARENT_LABEL = "chaos-mesh.org/workflow", "chaos-mesh.org/controlled-by"
DONE = ("Accomplished", "DeadlineExceed", "Aborted")
API = "chaos-mesh.org/v1alpha1"


class Workflows:
    """One task for each workflow, ended when the workflow is gone or aborted."""

    group: asyncio.TaskGroup

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()  # deleted in the foreground while they ran
        self._aborted: set[Key] = set()

    def reconcile(self, key: Key, workflow: Object | None) -> None:
        task = self._tasks.get(key)
        if workflow is None or (deleting(workflow) and not _in_foreground(workflow)):
            self._again.discard(key)
            self._aborted.discard(key)
            if task is not None:
                task.cancel()
                del self._tasks[key]
        elif deleting(workflow):
            # Upstream misses the entry node, which goes first, and makes another one.
            if task is not None and key not in self._again:
                self._again.add(key)
                task.cancel()
                self._tasks[key] = self.group.create_task(self._run(workflow))
        elif task is None:
            if not (workflow.get("status") or {}).get("endTime"):
                self._tasks[key] = self.group.create_task(self._run(workflow))
        elif ABORT in annotations_of(workflow) and key not in self._aborted and self._entries(workflow):
            self._aborted.add(key)
            task.cancel()
            self._tasks[key] = self.group.create_task(self._abort(workflow, task))

    def _entries(self, workflow: Object) -> list[Object]:
        return self._cache.owned(workflow, "WorkflowNode")

    async def _run(self, workflow: Object) -> None:
        templates = {t["name"]: t for t in workflow["spec"]["templates"]}
        first = workflow["spec"]["entry"]
        try:
            entry = await self._node(workflow, templates[first], workflow)
            name = entry["metadata"]["name"]
            await self._write(workflow, {"startTime": now(), "entryNode": name}, accomplished=False)
            self._recorder.event(
                workflow, COMPONENT, "EntryCreated", f"entry node created, entry node {name}"
            )
            await self._step(workflow, templates, entry)
            await self._write(workflow, {"endTime": now()}, accomplished=True)
            self._recorder.event(workflow, COMPONENT, "WorkflowAccomplished", "workflow accomplished")
        except (PlatformError, KeyError) as error:
            text = f"failed to spawn new entry node of workflow, entry: {first} ({error})"
            self._recorder.event(workflow, COMPONENT, "InvalidEntry", text, warning=True)

    async def _abort(self, workflow: Object, task: asyncio.Task[None]) -> None:
        """End every node, once what was under way has taken its experiments with it."""
        await asyncio.wait([task])
        for node in self._cache.all("WorkflowNode", workflow["metadata"]["namespace"]):
            mine = (node["metadata"].get("labels") or {}).get(FLOW_LABEL) == workflow["metadata"]["name"]
            if mine and not any(is_true(node, kind) for kind in DONE):
                await self._end(node, "Aborted")
        await self._write(workflow, {"endTime": now()}, accomplished=True)

    async def _step(self, workflow: Object, templates: Mapping[str, Any], node: Object) -> None:
        template = templates[node["spec"]["templateName"]]
        kind, children = template["templateType"], template.get("children") or []
        deadline = parse_duration(template["deadline"]) if template.get("deadline") else None
        if kind in CHAOS or kind == "Schedule":
            await self._chaos(workflow, template, node, deadline)
            await self._end(node, "DeadlineExceed")
            return
        try:
            async with asyncio.timeout(deadline):
                if kind == "Serial":
                    for child in children:
                        await self._child(workflow, templates, child, node)
                elif kind == "Parallel":
                    async with asyncio.TaskGroup() as group:
                        for child in children:
                            group.create_task(self._child(workflow, templates, child, node))
                elif kind == "Suspend":
                    await asyncio.Event().wait()
        except TimeoutError:
            await self._end(node, "DeadlineExceed")
            return
        await self._end(node, "Accomplished")

    async def _child(self, workflow: Object, templates: Mapping[str, Any], name: str, parent: Object) -> None:
        await self._step(workflow, templates, await self._node(workflow, templates[name], parent))

    async def _node(self, workflow: Object, template: Object, parent: Object) -> Object:
        meta = self._made(workflow, template["name"], parent) | {"finalizers": ["foregroundDeletion"]}
        spec = {
            "templateName": template["name"],
            "workflowName": workflow["metadata"]["name"],
            "type": template["templateType"],
            "startTime": now(),
        }
        body = {"apiVersion": API, "kind": "WorkflowNode", "metadata": meta, "spec": spec}
        created = await self._cache.kube.create(body)
        self._cache.put(created)
        return created

    async def _end(self, node: Object, condition: str) -> None:
        status = {"conditions": [{"type": condition, "status": "True", "reason": ""}]}
        try:
            await self._cache.kube.patch(Ref.of(node), {"status": status}, "merge", subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise

    def _made(self, workflow: Object, base: str, parent: Object) -> Object:
        return {
            "name": f"{base}-{suffix()}",
            "namespace": workflow["metadata"]["namespace"],
            "labels": {
                FLOW_LABEL: workflow["metadata"]["name"],
                PARENT_LABEL: parent["metadata"]["name"],
            },
            "ownerReferences": [owner_reference(parent)],
        }

    async def _chaos(self, workflow: Object, template: Object, node: Object, deadline: float | None) -> None:
        """An experiment exists from now to its deadline; without one, for as long as its workflow."""
        kind = template["templateType"]
        child = {
            "apiVersion": API,
            "kind": kind,
            "metadata": self._made(workflow, node["metadata"]["name"], node),
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
        try:
            await self._cache.kube.patch(Ref.of(workflow), {"status": status}, "merge", subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise


def _in_foreground(workflow: Object) -> bool:
    return "foregroundDeletion" in (workflow["metadata"].get("finalizers") or ())
