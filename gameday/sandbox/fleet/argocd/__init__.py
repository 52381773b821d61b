"""A stand-in for Argo CD's application controller, with a small git to deploy from."""

from __future__ import annotations

from gameday.sandbox.fleet.argocd.controller import Applications

__all__ = ["Applications"]
