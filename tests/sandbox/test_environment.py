"""How a process finds the sandbox, and that it finds nothing of it any more when it is down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gameday.sandbox import Sandbox

pytestmark = pytest.mark.fast


def test_the_environment_is_as_before_when_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "mine")
    monkeypatch.delenv("SLURM_JWT", raising=False)
    before = dict(os.environ)
    box = Sandbox(
        Path("its"), "gameday-sandbox", "api", "prometheus", "metrics", "control", Path(), slurm_token="token"
    )
    with box.as_environment():
        assert (os.environ["KUBECONFIG"], os.environ["SLURM_JWT"]) == ("its", "token")
    assert dict(os.environ) == before
