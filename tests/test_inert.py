"""Text from elsewhere does nothing to a terminal, whatever is printed and however."""

from __future__ import annotations

import io
import os
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from gameday.cli.console import InertConsole
from gameday.cli.terminal import Stream
from gameday.inert import one_line, visible
from tests.support.platforms import ROOT

pytestmark = pytest.mark.fast
HOSTILE = "[/red][bold]x[/] :boom: \x1b]0;title\x07\x1b[2J\x9b31m \u202etxt.exe \u200b\ufeff a\rb \ud800"
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def unseen(text: str, kept: str = "\n\t") -> list[str]:
    return [c for c in text if unicodedata.category(c) in UNSEEN and c not in kept]


@given(st.text(st.characters(codec=None)))
def test_nothing_unseen_is_left(text: str) -> None:
    assert unseen(visible(text)) == []
    assert unseen(one_line(text), "") == []
    assert visible(visible(text)) == visible(text)


@given(
    st.text(
        st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0")
    )
)
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_rich_obeys_nothing_but_our_styles() -> None:
    out = io.StringIO()
    console = InertConsole(
        file=out,
        markup=False,
        emoji=False,
        highlight=False,
        width=300,
        force_terminal=True,
        color_system="standard",
    )
    table = Table(box=None)
    table.add_column("h")
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE, "bold"))
    for shown in (HOSTILE, Text(HOSTILE), table, f"password={'x' * 9}"):
        console.print(shown)
    text = out.getvalue()
    assert text.count("[/red][bold]x[/] :boom: ␛]0;title␇␛[2J<U+009B>31m <U+202E>txt.exe") == 2
    assert text.count("[/red][bold]x[/] :boom: ␛]0;title␛[2J<U+009B>31m") == 2  # Text drops some by itself
    assert "password=***" in text
    assert unseen(text.replace("\x1b[1m", "").replace("\x1b[0m", "")) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_print_is_inert_in_every_encoding(encoding: str) -> None:
    reading, writing = os.pipe()
    print(HOSTILE + " → token=abcdefgh", file=Stream(writing, encoding))
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode(encoding)
    assert "[/red][bold]x[/]" in text
    assert "token=***" in text
    assert unseen(text) == []


def test_there_is_no_other_console() -> None:
    """Text from elsewhere reaches a terminal through one of ours, or through a Stream."""
    files = list((ROOT / "gameday").rglob("*.py"))
    assert len(files) > 100
    for file in files:
        assert not re.search(r"\bConsole\(\s*[)\w]|from_markup|\bmarkup=True", file.read_text()), file
