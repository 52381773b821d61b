"""gameday: the chaos and game-day orchestrator for GPU platforms."""

from __future__ import annotations

__version__ = "0.1.0"
