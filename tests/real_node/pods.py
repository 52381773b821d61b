"""Pods for the real node, made of the one image that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready
from tests.support.node import RealNode
from tests.support.polling import eventually

MAIN = "main"


def manifest(node: RealNode, name: str, *command: str, **spec: Any) -> Object:
    container = {"name": MAIN, "image": node.image, "imagePullPolicy": "Never", "command": list(command)}
    container |= spec.pop("container", {})
    meta = {"name": name, "namespace": "default"}
    base = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": base | spec}


@asynccontextmanager
async def running(kube: Kube, pod: Object) -> AsyncIterator[Ref]:
    """The pod, once it is Ready; gone afterwards."""
    ref = Ref.of(await kube.create(pod))
    try:
        await eventually(lambda: kube.get(ref), is_ready)
        yield ref
    finally:
        await kube.delete(ref, grace=0)
        await eventually(lambda: kube.find(ref), lambda found: found is None)
