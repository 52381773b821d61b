"""The chaostoolkit probe: what its providers return becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.world import World
from gameday.probes.chaostoolkit import ChaosToolkit, ChaosToolkitSpec

EXTENSION = """
def number(): return 3
def share(): return 0.25
def truth(): return False
def nothing(): return None
def several(): return [1, 2]
def shape(): return {"a": 1}
def wrong(): raise ValueError("no such thing")
def given(what): return what
"""


@pytest.fixture(autouse=True)
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed extension, for the probe's own process."""
    (tmp_path / "acme_chaos.py").write_text(EXTENSION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


async def ask(kube: Kube, **provider: Any) -> list[tuple[str, Any]]:
    if "func" in provider:
        provider = {"type": "python", "module": "acme_chaos", **provider}
    spec = ChaosToolkitSpec.model_validate({"type": "probe", "name": "p", "provider": provider})
    return list((await ChaosToolkit().measure(spec, World(kube))).series)


@pytest.mark.parametrize(
    ("func", "series"),
    [
        ("number", [("", 3.0)]),
        ("share", [("", 0.25)]),
        ("truth", [("", False)]),
        ("nothing", []),
        ("several", [("0", 1), ("1", 2)]),
    ],
)
async def test_what_python_returns(kube: Kube, func: str, series: list[Any]) -> None:
    assert await ask(kube, func=func) == series


async def test_other_providers(kube: Kube) -> None:
    assert await ask(kube, func="given", arguments={"what": "well"}) == [("", "well")]
    assert await ask(kube, type="process", path="true") == [("", 0.0)]
    assert await ask(kube, type="process", path="false") == [("", 1.0)]


async def test_failures(kube: Kube) -> None:
    with pytest.raises(PlatformError, match="returned a dict"):
        await ask(kube, func="shape")
    with pytest.raises(PlatformError, match="no such thing"):
        await ask(kube, func="wrong")
