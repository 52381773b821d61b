"""The real controllers are there, each under its own name."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.go_module import GoModule
from tests.systems.build import MODULES


@pytest.mark.parametrize(("module", "name"), [(m, n) for m in MODULES for n in m.names], ids=str)
def test_a_program_answers_to_its_name(module: GoModule, name: str) -> None:
    done = subprocess.run([module.build() / name, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "-kubeconfig" in said or "-port" in said
