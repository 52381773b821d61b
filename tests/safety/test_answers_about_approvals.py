"""An answer about approvals is read to its end, in however many pieces; one without an end is refused."""

from __future__ import annotations

import pytest

from gameday.safety.approvals.http import LONGEST, NotAsked, ask
from tests.support.raw import answer, raw_server

pytestmark = pytest.mark.fast


async def test_a_long_answer_is_read_whole() -> None:
    said = {"plan": "a", "more": "x" * (LONGEST - 100)}
    async with raw_server(lambda _: answer(200, said)) as server:
        assert await ask("POST", server.url, "it", headers={}) == said


async def test_an_endless_answer_is_refused() -> None:
    async with raw_server(lambda _: answer(200, b"x" * (LONGEST + 1))) as server:
        with pytest.raises(NotAsked, match="more than 1048576 bytes"):
            await ask("POST", server.url, "it", headers={})
