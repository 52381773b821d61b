"""Everything from the cluster is data: hostile text in every field runs nothing and breaks nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from playwright.async_api import Browser

from gameday import events as ev
from gameday.report import analyse, render
from gameday.report.slack_message import ThreadLines, summary
from tests.report import logs
from tests.support import blockkit, browser

EVIL = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028\u2029\x00\x1b[31m'\"`|\n"
    "| --- |\n# h\n[x](javascript:alert(3)) ![p](http://evil.example/x.png) <!channel> <@U1> ]]> &amp;"
    " *b* _i_ ~s~"
    " {{ 7*7 }} ${7*7} ```\x07 \u202etxt.exe\u2066\u200b\x9b31m\ufeff"
)
UNSEEN = "\x00\x07\x1b\x9b\u2028\u2029\u202e\u2066\u200b\ufeff"
KEPT = {"state", "type", "verdict", "purpose", "phase", "level", "outcome"}  # words with a meaning


def poison(value: Any) -> Any:
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {k + EVIL if k not in _STRUCTURE else k: poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v) for v in value]
    return value


_STRUCTURE = {
    "labels",
    "points",
    "spec",
    "steadyState",
    "expectAlerts",
    "name",
    "is",
    "during",
    "alert",
    "within",
}


def hostile() -> list[ev.Event]:
    """The game day with poison in every text, its seam of ids kept."""
    poisoned = []
    for event in logs.game_day():
        changed = {f.name: poison(getattr(event, f.name)) for f in fields(event) if f.name not in KEPT}
        poisoned.append(replace(event, **changed))
    return poisoned


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logs.write(tmp_path_factory.mktemp("hostile"), hostile())


async def test_the_page_runs_nothing(chromium: Browser, run: Path) -> None:
    outputs = render(run)
    async with browser.opened(chromium, outputs.html) as (page, trouble):
        await browser.drawn(page)
        assert await page.locator("script").count() == 3
        assert await page.locator("img").count() == 0
        assert await page.locator(".plot svg").count() > 0
        assert "alert(1)" in await page.locator("h1").inner_text()
    assert trouble == []


@pytest.mark.fast
def test_the_markdown_has_no_markup_of_theirs(run: Path) -> None:
    text = render(run).markdown.read_text()
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for sign in ("<script", "<img", 'javascript:alert(3)"', "<em>i</em>", "<h1>h"):
        assert sign not in html
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} <= {4, 5, 7, 8}


@pytest.mark.fast
def test_nothing_hides_or_reorders_what_stands_there(run: Path) -> None:
    """In a terminal, an editor and a browser alike; in Slack too."""
    outputs = render(run)
    message = summary(outputs.retrospective)
    tell = ThreadLines()
    texts = [
        outputs.markdown.read_text(),
        outputs.junit.read_text(),
        json.dumps(message.blocks, ensure_ascii=False),
    ]
    texts += [outputs.html.read_text().split("<script")[0], "".join(filter(None, map(tell, hostile())))]
    assert [(text[:40], c) for text in texts for c in UNSEEN if c in text] == []


@pytest.mark.fast
def test_data_files_parse(run: Path) -> None:
    outputs = render(run)
    assert json.loads(outputs.json.read_text())["verdict"] == "deviated"
    assert json.loads(outputs.journal.read_text())["deviated"] is True
    cases = ET.parse(outputs.junit).getroot().iter("testcase")
    assert any("alert(1)" in case.get("name", "") for case in cases)


@pytest.mark.fast
def test_slack_is_not_talked_into_anything() -> None:
    message = summary(analyse(hostile()), "https://example.com/a?b=1&c=2")
    assert blockkit.problems(message.blocks) == []
    sent = json.dumps(message.blocks) + message.text
    tell = ThreadLines()
    sent += "".join(filter(None, map(tell, hostile())))
    for sign in ("<!channel>", "<@U1>", "<script", " *b* ", " _i_ "):
        assert sign not in sent
    assert sent.count("<https://example.com/a?b=1&amp;c=2|") == 1


@pytest.mark.fast
def test_secrets_are_in_no_output(tmp_path: Path) -> None:
    secret = [
        "hunter2hunter2",
        "xoxb-123456789012-abcdefghij",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ]
    events = logs.game_day()
    note = ev.Note(author="mara", text=f"token={secret[0]} {secret[1]} Authorization: Bearer {secret[2]}")
    warning = ev.ObjectEvent(
        object="Pod a/b", reason="Failed", message=f"pull with {secret[2]}", level="Warning"
    )
    at, seq = logs.START + 300, 900
    extra = [replace(note, at=at, seq=seq), replace(warning, at=at, seq=seq + 1)]
    outputs = render(logs.write(tmp_path, [*events[:-1], *extra, events[-1]]))
    everything = "".join(f.read_text() for f in (outputs.html, outputs.markdown, outputs.json, outputs.junit))
    everything += outputs.journal.read_text() + str(summary(outputs.retrospective))
    assert not [s for s in secret if s in everything]
    assert "***" in everything
