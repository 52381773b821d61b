"""report.md: the retrospective for a repository, a ticket or a wiki; everything foreign is escaped."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jinja2

from gameday.masking import clip
from gameday.report import page, wording
from gameday.report.model import Moment, Retrospective
from gameday.report.timeline import shortened

LINES = 200  # of the timeline


class Raw(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escape(value: Any) -> str:
    """Any text as one line of plain Markdown: no markup, no HTML, no table cell of its own."""
    if isinstance(value, Raw | jinja2.Undefined):
        return str(value)
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$]|^#|^[-+](?=\s|$)|(?<=^\d)[.)](?=\s|$))", r"\\\1", text)


def code(value: Any) -> Raw:
    """Text as a code span, with a fence longer than any inside it."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    if not text:
        return Raw("")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Raw(f"{fence}{pad}{text}{pad}{fence}")


def markdown(retro: Retrospective) -> str:
    """The whole report."""
    return template().render(
        r=retro,
        run=retro.run,
        facts=page.key_figures(retro),
        timeline=list(shortened(retro.timeline, LINES)),
        is_moment=lambda value: isinstance(value, Moment),
        touched=list(page.grouped(retro.touched)),
        verdict=wording.VERDICTS.get(retro.verdict, (retro.verdict,))[0],
        fence=Raw("```"),
        commands=[Raw(c.replace("`", "'").replace("\n", " ")) for c in retro.again],
    )


@cache
def template() -> jinja2.Template:
    """The report's template, compiled."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("gameday.report"),
        autoescape=False,  # what `finalize` does is this format's escaping
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    words = ("figure", "percent", "duration", "clock", "wall", "labels", "plural", "join")
    env.filters |= {name: getattr(wording, name) for name in words}
    env.filters |= {
        "code": code,
        "cut": lambda text: clip(text, page.TEXT),
    }
    return env.get_template("report.md.j2")
