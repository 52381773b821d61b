"""Kubeconfigs of people with several clusters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane import build

PROD = "https://prod.invalid:6443"


def kubectl() -> str:
    """kubectl's path, for what it does without a cluster; the test is skipped on a machine without one."""
    built = build.program("kubectl")
    found = str(built) if built else shutil.which("kubectl")
    if found is None:
        pytest.skip("needs kubectl: install it, or build the control plane with `make controlplane`")
    return found


def beside_prod(kubeconfig: Path, folder: Path) -> Path:
    """That file's entries beside those of a cluster `prod`, which the current context is of."""
    document: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    document["current-context"] = "prod"
    document["clusters"].append({"name": "prod", "cluster": {"server": PROD}})
    document["users"].append({"name": "prod", "user": {"token": "of-prod"}})
    document["contexts"].append({"name": "prod", "context": {"cluster": "prod", "user": "prod"}})
    path = folder / "several"
    path.write_text(json.dumps(document))
    return path
