"""The retrospective: what a run's log tells, as a page, as Markdown, for machines, and for Slack."""

from __future__ import annotations

from gameday.events import NoLog
from gameday.report.analysis import analyse
from gameday.report.render import Outputs, png, render

__all__ = ["NoLog", "Outputs", "analyse", "png", "render"]
