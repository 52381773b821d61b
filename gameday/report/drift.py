"""Drift as a run saw it: whether a change by hand was noticed and corrected, and how soon."""

from __future__ import annotations

from collections.abc import Iterator

from gameday import events as ev
from gameday.masking import mask_text
from gameday.report.model import Finding, Retrospective
from gameday.report.reading import Story

MEASURED = "the drift of"  # as the drift fault words its progress


def drift_measured(_: Retrospective, story: Story) -> Iterator[Finding]:
    """One finding for each step that let something drift; its last word is how it ended."""
    steps: dict[str, list[ev.Progress]] = {}
    for event in story.all(ev.Progress):
        if MEASURED in event.message:
            steps.setdefault(event.step, []).append(event)
    for told in steps.values():
        title = mask_text(told[-1].message)
        corrected = " corrected " in title or " ended " in title
        yield Finding(
            "drift",
            "notice" if corrected else "warning",
            title,
            tuple(mask_text(e.message) for e in told[:-1]),
            tuple(e.seq for e in told),
            "" if corrected else "Switch self-heal on, or alert on applications that stay OutOfSync",
        )
