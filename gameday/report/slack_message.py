"""The Slack message of a run: verdict, why, the hypothesis in a table, the figures, the link.

Limits are Slack's (docs.slack.dev/reference/block-kit): 50 blocks, 150 characters in a header, 3,000 in a
section, 2,000 in a field. What came from the cluster can't mention, link or format.
"""

from __future__ import annotations

import re
from typing import Any

from gameday import events as ev
from gameday.inert import visible
from gameday.masking import clip
from gameday.platform.slack import Message
from gameday.report import wording
from gameday.report.model import Hypothesis, Moment, Reading, Retrospective
from gameday.report.page import key_figures
from gameday.report.timeline import Teller

HEADER, SECTION, FIELD, ROWS = 150, 3000, 2000, 12
_SIGNS = {
    "passed": ":white_check_mark:",
    "deviated": ":warning:",
    "aborted": ":octagonal_sign:",
    "refused": ":no_entry:",
    "not-restored": ":rotating_light:",
    "defect": ":beetle:",
    "interrupted": ":black_square_for_stop:",
}
Block = dict[str, Any]


def escape(text: str, most: int = SECTION) -> str:
    """Text from elsewhere, without any mark-up of its own; never cut inside an entity."""
    flat = visible(text).replace("`", "ˋ").replace("*", "∗").replace("~", "∼")
    flat = re.sub(r"(?<!\w)_|_(?!\w)", "ˍ", flat)  # a word's own underscores do not format
    out: list[str] = []
    size = 0
    for char in flat:
        piece = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(char, char)
        if size + len(piece) > most - 1:
            return "".join(out) + "…"
        out.append(piece)
        size += len(piece)
    return "".join(out)


def summary(retro: Retrospective, link: str = "") -> Message:
    """The message for a finished or cut-off run. `link` is the report's address, or its path."""
    run = retro.run
    word = wording.VERDICTS.get(retro.verdict, (retro.verdict,))[0]
    title = run.title or run.name or "Game day"
    blocks: list[Block] = [
        {"type": "header", "text": _plain(f"{word}: {title}", HEADER)},
        _section(f"{_SIGNS.get(retro.verdict, ':grey_question:')} *{word}*: {escape(retro.why, 2500)}"),
    ]
    if retro.hypothesis:
        blocks.append(_section(_table(retro.hypothesis)))
    figures = [
        f"*{name}*\n{escape(value, 200)} ({escape(note, 200)})" for name, value, note, _ in key_figures(retro)
    ]
    fields = [{"type": "mrkdwn", "text": clip(figure, FIELD)} for figure in figures]
    blocks.append({"type": "section", "fields": fields})
    serious = [f for f in retro.findings if f.severity != "notice"]
    if serious:
        blocks.append(_section(_bounded([f"• {escape(f.title, 300)}" for f in serious], "Findings")))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _context(retro)}]})
    if link:
        blocks.append(_section(_link(link)))
    return Message(f"{word}: {escape(title, 200)}. {escape(retro.why, 500)}", blocks)


def _plain(text: str, most: int) -> Block:
    """Plain text knows no mark-up; its angle brackets go all the same, whoever reads it."""
    text = text.replace("<", "‹").replace(">", "›")
    short = text if len(text) <= most else text[: most - 1] + "…"
    return {"type": "plain_text", "text": short, "emoji": False}


def _section(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _link(link: str) -> str:
    """An address becomes a link; a path on someone's machine is only shown."""
    if re.fullmatch(r"https?://[^\s<>|]+", link):
        return f"<{link.replace('&', '&amp;')}|Open the retrospective>"
    return f"Retrospective: `{escape(link, 500)}`"


def _context(retro: Retrospective) -> str:
    run = retro.run
    parts = [
        f"run {run.id}" if run.id else "",
        f"by {run.by}" if run.by else "",
        f"on {run.platform.get('context')}" if run.platform.get("context") else "",
        f"{wording.wall(run.started, date=True)}, {wording.duration(run.duration)}",
        f"seed {run.seed}",
    ]
    return escape(" · ".join(filter(None, parts)), 1000)


def _bounded(lines: list[str], title: str) -> str:
    """As many lines as a section holds; the rest is counted."""
    text = f"*{title}*"
    for i, line in enumerate(lines):
        if i == ROWS or len(text) + len(line) > SECTION - 60:
            return f"{text}\n… and {len(lines) - i} more in the report"
        text += "\n" + line
    return text


def _table(rows: tuple[Hypothesis, ...]) -> str:
    """The hypothesis as a table of fixed width; probes that broke come first."""
    head = ("Steady state", "Expected", "Before", "Worst", "After", "")
    shown = sorted(rows, key=lambda h: h.holds is not False)[:ROWS]
    cells = [head, *(_row(h) for h in shown)]
    cells = [tuple(escape(c, 26).replace("\n", " ") for c in row) for row in cells]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c + " " * (w - _width(c)) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    notes = ["", *(_while_in(h) for h in shown)]
    lines = [text for pair in zip(lines, notes, strict=True) for text in pair if text]
    lines.insert(1, "  ".join("─" * w for w in widths))
    more = f"\n… and {len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
    return clip(f"```{chr(10).join(lines)}{more}```", SECTION)


def _width(text: str) -> int:
    """Characters as shown: an escaped one is one."""
    return len(re.sub("&(?:amp|lt|gt);", "x", text))


def _while_in(h: Hypothesis) -> str:
    """The bound that counted while a fault was in, where it was another one."""
    if h.during == "ignore":
        return "  (not judged while a fault was in)"
    return f"  (while a fault was in: {escape(h.during, 40)})" if h.during else ""


def _row(h: Hypothesis) -> tuple[str, ...]:
    def told(reading: Reading | None) -> str:
        return wording.figure(reading.value, h.unit) if reading else "—"

    verdict = h.unjudged if h.holds is None else "held" if h.holds else "BROKE"
    return h.probe, h.expected, told(h.before), told(h.worst), told(h.after), verdict


def as_text(blocks: list[Block]) -> str:
    """The blocks as a person would read them, for a terminal: what is printed where there is no token."""
    return "\n\n".join(filter(None, map(_block_text, blocks))) + "\n"


def _block_text(block: Block) -> str:
    if block["type"] == "header":
        text = str(block["text"]["text"])
        return f"{text}\n{'═' * min(len(text), 100)}"
    if block["type"] == "context":
        return "\n".join(_readable(e["text"]) for e in block["elements"] if "text" in e)
    if block["type"] == "image":
        return f"[picture: {block.get('alt_text', '')}]"
    if "fields" in block:
        return "\n".join(_readable(f["text"]).replace("\n", ": ", 1) for f in block["fields"])
    return _readable(block["text"]["text"]) if "text" in block else ""


def _readable(mrkdwn: str) -> str:
    text = re.sub(r"<(https?://[^|>]+)\|([^>]+)>", r"\2: \1", mrkdwn)
    text = re.sub(r"^:[a-z_]+: ", "", text).replace("```", "").replace("*", "").replace("`", "")
    return (
        text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .replace("ˋ", "`")
        .replace("∗", "*")
    )


_TONES = {"good": ":large_green_circle:", "bad": ":red_circle:", "warn": ":large_yellow_circle:"}
_QUIET = {"kubernetes", "condition", "gap"}  # the report has them; a thread would drown


class ThreadLines:
    """Turns events into lines of the run's thread; the first one opens it."""

    def __init__(self) -> None:
        self._tell, self._started = Teller(), 0.0

    def __call__(self, event: ev.Event) -> str | None:
        """A line of mrkdwn, or None for what the thread does not carry."""
        if isinstance(event, ev.RunStarted):
            self._started = event.at
            title, run, by = (
                escape(event.title or event.name, 300),
                escape(event.run, 100),
                escape(event.by, 60),
            )
            return f":game_die: *Game day*: {title}, run {run} by {by}"
        moment = self._tell(event)
        if moment is None or (moment.kind in _QUIET and moment.tone != "bad"):
            return None
        return self._line(moment)

    def _line(self, m: Moment) -> str:
        detail = f" ({escape(m.detail, 300)})" if m.detail and m.kind != "phase" else ""
        if m.kind == "phase" and m.detail:
            detail = f": {escape(m.detail, 600)}"
        text = escape(m.text, 600)
        text = f"*{text}*" if m.kind in ("fault", "abort", "phase") and m.tone != "plain" else text
        return (
            f"{_TONES.get(m.tone, ':white_circle:')} `{wording.clock(m.at - self._started)}` {text}{detail}"
        )
