"""What RBAC does not allow is found before anything is touched, and named as kubectl auth can-i does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.e2e.experiments import CORDON, write
from tests.support.platforms import Platform
from tests.support.program import Program
from tests.support.snapshot import Snapshot


async def test_a_missing_permission_is_named(
    platform: Platform, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[CORDON])
    if platform.restricted_kubeconfig is not None:
        env = {"KUBECONFIG": str(platform.restricted_kubeconfig)}
        ended = await asyncio.to_thread(gameday.run, file, env=env)
        assert 'User "restricted" cannot get resource "' in ended.output, ended.output
        assert "the missing RBAC permission: get" in ended.output, ended.output
    else:
        denials = f"{platform.api_url}/sandbox/denials"
        async with aiohttp.ClientSession() as session:
            await session.put(denials, json={"verb": "patch", "resource": "nodes"})
            try:
                ended = await asyncio.to_thread(gameday.run, file)
            finally:
                await session.delete(denials)
        assert "RBAC does not allow: patch nodes" in ended.output
    assert ended.code == 4, ended.output
    assert not ended.of("change")
