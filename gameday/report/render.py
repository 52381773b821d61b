"""Writes the files of a report into a run's folder, from the log alone; the same log gives the same files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gameday.events import Log
from gameday.report.analysis import analyse
from gameday.report.model import Retrospective


@dataclass(frozen=True)
class Outputs:
    """Where the report is, and what it says."""

    html: Path
    markdown: Path
    json: Path
    junit: Path
    journal: Path
    retrospective: Retrospective


def render(run_dir: Path) -> Outputs:
    """Writes report.html, report.md, report.json, junit.xml and journal.json beside events.jsonl.

    Raises NoLog when the folder has no log.
    """
    from gameday.report import journal, junit, markdown, page, report_json

    log = Log(run_dir / "events.jsonl")
    with ThreadPoolExecutor(1) as aside:  # the chart library comes from a cache, or takes seconds to bundle
        bundle = aside.submit(page.library)
        retro = analyse(log)
        written = {
            "report.md": markdown.markdown(retro),
            "report.json": report_json.dumps(retro),
            "junit.xml": junit.junit(retro),
            "journal.json": journal.dumps(retro),
            "report.html": page.html(retro, bundle.result()),
        }
    for name, text in written.items():
        _replace(run_dir / name, text)
    page_file, text_file, data_file, junit_file, journal_file = (
        run_dir / name for name in ("report.html", "report.md", "report.json", "junit.xml", "journal.json")
    )
    return Outputs(page_file, text_file, data_file, junit_file, journal_file, retro)


def png(retrospective: Retrospective) -> bytes:
    """The key chart as a picture; empty when nothing was sampled."""
    from gameday.report import charts

    return charts.png(retrospective)


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)
    except OSError:  # a full disk is not to be filled with halves
        part.unlink(missing_ok=True)
        raise
