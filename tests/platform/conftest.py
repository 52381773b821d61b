"""A namespace and a node of their own for the tests of the API's behaviour."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.platform.arrange import unique
from tests.support.polling import eventually


@pytest.fixture(scope="session")
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """A namespace that pods are admitted to, shared by the tests."""
    async with _new_namespace(kube) as name:
        yield name


@pytest.fixture
async def empty_namespace(kube: Kube) -> AsyncIterator[str]:
    """A namespace that nobody else uses."""
    async with _new_namespace(kube) as name:
        yield name


@asynccontextmanager
async def _new_namespace(kube: Kube) -> AsyncIterator[str]:
    name = unique("contract")
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", name)))
    yield name
    await kube.delete(ref)


@pytest.fixture(scope="package")
async def node(kube: Kube) -> AsyncIterator[str]:
    """A node without a kubelet: what happens to its pods is up to the test. In time it is found dead."""
    obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": unique("contract-node")}}
    ref = Ref.of(await kube.create(obj))
    yield ref.name
    await kube.delete(ref)


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_running() -> Iterator[None]:
    """No process that these tests started outlives them: each has this session's mark in its environment."""
    mark = f"GAMEDAY_TESTS={uuid.uuid4()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*mark.split("="))
        yield
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
            if process.name == str(os.getpid()) or b"multiprocessing" in command:  # ours
                continue
            if mark.encode() in (process / "environ").read_bytes():
                left.append(command)
    assert not left
