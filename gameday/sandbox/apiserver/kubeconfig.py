"""Writes the kubeconfig that kubectl and gameday reach the sandbox with."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_kubeconfig(
    path: Path, url: str, context: str = "gameday-sandbox", token: str | None = None
) -> Path:
    """One cluster, one user, one context, all of that name; readable by its owner only."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": url}}],
        "users": [{"name": context, "user": {"token": token} if token else {}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
