"""Hostile text in every place where text of others is taken: it stays text, wherever it is shown.

A run whose title, steps, notes, abort and targets carry markup, mentions, control characters and 100 KB is
shown on a terminal, in a browser, in Markdown and in Slack.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from tests.support import blockkit, browser
from tests.support.platforms import ROOT
from tests.support.program import read_events
from tests.support.slack import FakeSlack
from tests.support.threads import LoopThread
from tests.torture import catalogue
from tests.torture.figures import Figures
from tests.torture.kills import Bench

MARKUP = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><svg/onload=alert(3)>[/bold][red]x[link=x]"
)
MENTIONS = "<!channel> <@U012AB3CD> <!here|x> @channel *b* _i_ ~s~ `c` [x](javascript:alert(4)) | a | b |"
CONTROL = "\x1b]0;pwned\x07\x1b[2J\x1b[31m\x9b31m\x00\x08\x7f\r\u202eevil\u2066\u2029"
LARGE = "x<b>" * 25_000  # 100 KB
TEXTS = {"markup": MARKUP, "mentions": MENTIONS, "control characters": CONTROL, "100 KB": LARGE}
OBEYED = ("\x1b]", "\x1b[2J", "\x9b", "\x00", "\x08", "\x7f", "\u202e", "\u2066")  # not Rich's own colours
WITHIN = 90.0


@dataclass
class Shown:
    """A run with one hostile text everywhere, as it was shown."""

    text: str
    terminal: str = ""
    folder: Path | None = None
    slack: FakeSlack = field(default_factory=FakeSlack)
    code: int = -1


def hostile(found: Figures, bench: Bench, until: float) -> None:
    """Each text in turn; what it became in each place where it is shown is a try of its own."""
    for name, text in TEXTS.items():
        if time.monotonic() > until:
            found.not_run[f"hostile: {name}"] = "the budget was over"
            continue
        shown = _show(bench, text)
        checks = {
            "a terminal": _terminal(shown),
            "a browser": _page(shown),
            "Markdown": _markdown(shown),
            "Slack": _slack(shown),
        }
        for place, wrong in checks.items():
            found.add("hostile", f"{name} in {place}", (), wrong, "")
            if wrong:
                print(f"  BROKEN {found.broken[-1][:900]}", flush=True)
        left = bench.left()
        found.add("hostile", f"{name}: the world afterwards", left, (), "")
        if left:
            bench.mend()


def _show(bench: Bench, text: str) -> Shown:
    """Run, note and abort with the text, on a terminal of its own and with a Slack."""
    shown, thread = Shown(text), LoopThread("slack")
    thread.call(shown.slack.start())
    reports = bench.scratch / f"hostile-{time.monotonic_ns()}"
    reports.mkdir()
    annotation = {
        "metadata": {"annotations": {"torture.gameday.dev/text": text[:90_000].replace("\x00", "")}}
    }
    merge, node = "application/merge-patch+json", "/api/v1/nodes/gpu-0"
    bench.world.ask("PATCH", node, annotation, merge)
    slack = {"SLACK_BOT_TOKEN": shown.slack.token, "SLACK_API_URL": shown.slack.url}
    environment = bench.direct.environment | slack | {"TERM": "xterm-256color"}
    del environment["NO_COLOR"]
    try:
        _terminal_run(bench, shown, reports, environment)
    finally:
        bench.world.ask(
            "PATCH", node, {"metadata": {"annotations": {"torture.gameday.dev/text": None}}}, merge
        )
        thread.call(shown.slack.stop())
        thread.close()
    return shown


def _terminal_run(bench: Bench, shown: Shown, reports: Path, environment: dict[str, str]) -> None:
    text = shown.text.replace("\x00", "")  # neither a file nor an argument can hold it
    case = next(c for c in catalogue.cases(bench.scratch) if c.name == "cordon")
    step = {**case.step, "name": text[:300], "for": "40s"}
    file = catalogue.write(bench.scratch, [step], title=text[:2000], report={"slack": "#gpu-gamedays"})
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "gameday", "run", str(file), "--yes", "--reports", str(reports)]
    said: list[bytes] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=inner, stdout=inner, stderr=inner
    ) as process:
        os.close(inner)
        deadline, noted = time.monotonic() + WITHIN, False
        while process.poll() is None and time.monotonic() < deadline:
            _read(outer, said)
            folder = next(iter(reports.iterdir()), None)
            if folder and not noted and _is_in(folder):
                noted = True
                bench.direct("note", folder.name, text[:100_000])
                bench.direct("abort", folder.name, "--reason", text[:2000])
                said.append((bench.direct.folder / f"output-{bench.direct._count}.txt").read_bytes())
                said.append(bench.direct("status").output.encode())
        process.kill()
        shown.code = process.wait()
    _read(outer, said)
    os.close(outer)
    shown.folder = next(iter(reports.iterdir()), None)
    shown.terminal = b"".join(said).decode(errors="replace")


def _is_in(folder: Path) -> bool:
    return any(e["type"] == "fault" and e["state"] == "in" for e in read_events(folder))


def _read(fd: int, said: list[bytes]) -> None:
    while select.select([fd], [], [], 0.05)[0]:
        try:
            said.append(os.read(fd, 2**16))
        except OSError:
            return


def _terminal(shown: Shown) -> tuple[str, ...]:
    wrong = [f"the terminal gets {sign!r}" for sign in OBEYED if sign in shown.terminal]
    if "Traceback" in shown.terminal:
        wrong.append(f"a stack trace: {shown.terminal[-600:]}")
    if shown.code not in (0, 3):
        wrong.append(f"exit code {shown.code}: {shown.terminal[-600:]}")
    return tuple(wrong)


def _page(shown: Shown) -> tuple[str, ...]:
    page = shown.folder / "report.html" if shown.folder else None
    if page is None or not page.exists():
        return ("there is no report",)
    return tuple(asyncio.run(_opened(page)))


async def _opened(path: Path) -> list[str]:
    async with browser.running() as chromium, browser.opened(chromium, path) as (page, trouble):
        await browser.drawn(page)
        images = await page.locator("img").count()
        handlers = await page.locator("[onerror], [onload]").count()
        return [*trouble, *(["an image or a handler of theirs"] if images or handlers else [])]


def _markdown(shown: Shown) -> tuple[str, ...]:
    page = shown.folder / "report.md" if shown.folder else None
    if page is None or not page.exists():
        return ("there is no report",)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page.read_text())
    signs = ("<script", "<img", "<svg", 'href="javascript', "<em>i</em>")
    return tuple(f"Markdown becomes {sign}" for sign in signs if sign in html)


def _slack(shown: Shown) -> tuple[str, ...]:
    calls = [c for c in shown.slack.calls if c.method in ("chat.postMessage", "chat.update")]
    wrong = [] if calls else ["nothing was posted"]
    for call in calls:
        wrong += _message(call.arguments)
    refused = [m for m in shown.slack.calls if m.method == "chat.postMessage"]
    if refused and not any(shown.slack.messages.values()):
        wrong.append("Slack refused every message")
    return tuple(dict.fromkeys(wrong))


def _message(arguments: dict[str, Any]) -> list[str]:
    blocks = arguments.get("blocks") or []
    blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
    sent = json.dumps(blocks, ensure_ascii=False) + str(arguments.get("text", ""))
    wrong = [f"Slack is sent {sign}" for sign in ("<!channel>", "<@U012AB3CD>", "<!here") if sign in sent]
    return wrong + (blockkit.problems(blocks)[:2] if blocks else [])
