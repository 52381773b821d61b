"""The platform that a session of tests shares, chosen by `--platform`, and what every test may ask for.

One platform serves all tests, because starting one takes longer than most tests: each test uses objects of
its own or restores what it touched, which `world_unchanged` proves.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gameday.platform.kube import Kube
from tests.support import platforms, snapshot
from tests.support.kept import nothing_kept
from tests.support.platforms import Platform
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.slack import FakeSlack
from tests.support.threads import LoopThread

# In CI generated examples are the same each time: a failure is of the change. By hand they are new ones.
# None of them has a deadline: how long one takes says how busy the machine is.
settings.register_profile("by hand", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "by hand")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--platform",
        choices=platforms.NAMES,
        default="sandbox",
        help="the embedded sandbox (default), a real control plane, or one with a real node",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"platform: {config.getoption('--platform')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a real control plane, leave out tests to which it makes no difference."""
    if config.getoption("--platform") == "cluster":
        config.hook.pytest_deselected(items=[item for item in items if not _differs(item)])
        items[:] = filter(_differs, items)


def _differs(item: pytest.Item) -> bool:
    asks = "platform" in getattr(item, "fixturenames", ()) or item.get_closest_marker("controlplane")
    return bool(asks) and not item.get_closest_marker("sandbox_only")


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    """What is a secret in one test, as the token that a client sent, is none in the next."""
    with nothing_kept():
        yield


@pytest.fixture(scope="session")
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The cluster, with its fleet and Prometheus."""
    name = request.config.getoption("--platform")
    with platforms.platform(name, tmp_path_factory.mktemp(name)) as running:
        yield running


@pytest.fixture(scope="session")
async def kube(platform: Platform) -> AsyncIterator[Kube]:
    """A client with every permission, for arranging and checking; the code under test makes its own."""
    async with await Kube.connect(platform.kubeconfig) as client:
        yield client


@pytest.fixture
async def world_unchanged(kube: Kube) -> AsyncIterator[snapshot.Snapshot]:
    """After the test every object is as it was before; the failure names each field that is not."""
    async with snapshot.unchanged(kube) as before:
        yield before


@pytest.fixture
def api_proxy(platform: Platform, tmp_path: Path) -> Iterator[ApiProxy]:
    """An API server address that fails on demand; use its `kubeconfig`."""
    proxy = ApiProxy(platform.kubeconfig, tmp_path / "kubeconfig-proxy")
    proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    """A Slack workspace with the channel #gpu-gamedays; it keeps running while a test blocks."""
    thread, fake = LoopThread("slack"), FakeSlack()
    thread.call(fake.start())
    yield fake
    thread.call(fake.stop())
    thread.close()


@pytest.fixture
def gameday(platform: Platform, tmp_path: Path) -> Program:
    """The program, set up for the platform."""
    return Program(platform, tmp_path)
