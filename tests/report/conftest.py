"""One browser for all tests of pages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.support import browser as browsers


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    if browsers.chromium() is None:
        pytest.skip("needs a browser: apt-get install chromium")
    async with browsers.running() as browser:
        yield browser
