"""A log that was cut off anywhere, or is newer, or is broken, can still be reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gameday import events as ev
from gameday.cli.aftermath import Aftermath
from gameday.report import NoLog, analyse, render
from tests.report import logs

pytestmark = pytest.mark.fast


def test_every_prefix_has_a_verdict() -> None:
    events = logs.game_day()
    for length in range(len(events) + 1):
        retro = analyse(events[:length])
        assert retro.why
        assert retro.verdict == ("deviated" if length == len(events) else "interrupted")


def test_prefixes_render_whole(tmp_path: Path) -> None:
    events = logs.game_day()
    for length in (0, 1, 2, *range(5, len(events), 37)):
        outputs = render(logs.write(tmp_path, events[:length]))
        for file in (outputs.html, outputs.markdown, outputs.json, outputs.junit, outputs.journal):
            assert file.stat().st_size > 100
        json.loads(outputs.json.read_text())
        told = outputs.retrospective
        assert not told.why.lower().startswith(told.verdict)  # which stands before it


def test_a_cut_off_run_says_where_it_ends_and_what_is_in_force() -> None:
    events = logs.game_day()
    cut = next(i for i, e in enumerate(events) if isinstance(e, ev.Fault) and e.state == "in")
    retro = analyse(events[: cut + 1])
    assert retro.why.startswith("the log ends at 11:08:01 UTC (+1:21) in the phase method")
    assert "1 drain two GPU nodes in force" in retro.why
    assert "gameday recover --run" in retro.why
    assert retro.again[0].startswith("gameday recover")


def test_an_empty_log_says_so() -> None:
    assert analyse([]).why == "the log is empty: the run was cut off before it began"


def test_a_line_cut_short_and_unknown_and_broken_lines(tmp_path: Path) -> None:
    whole = logs.write(tmp_path, logs.game_day()[:40]) / "events.jsonl"
    text = whole.read_bytes()
    strange = b'{"seq":41,"at":1795000070,"type":"from-the-future","x":1}\n[1]\n{"seq":4\n\xff\xfe\n'
    strange += b'{"seq":41,"type":["x"]}\n{"seq":41,"type":"samples"}\n'
    whole.write_bytes(text + strange + b'{"seq":42,"at":17950000')
    log = ev.Log(whole)
    retro = analyse(log)
    assert retro.run.events == 40
    assert log.unreadable == 5
    assert any(f.rule == "log" for f in retro.findings)


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b'{"seq":7,"at":17950000',
        b'{"seq":7,"at":1795000060,"type":"note","author":"a","text":"all but its line end"}',
        b'{"seq":7,"at":1795000060,"type":["x"]}\n',
    ],
    ids=["whole", "cut", "no line end", "no event"],
)
@pytest.mark.parametrize("length", [0, 6])
def test_what_is_added_to_a_log_is_numbered_on_from_what_readers_see(
    tmp_path: Path, length: int, end: bytes
) -> None:
    file = logs.write(tmp_path, logs.game_day()[:length]) / "events.jsonl"
    file.write_bytes(file.read_bytes() + end)
    assert Aftermath(tmp_path, "mara").close(restored=True) == ""
    assert [e.seq for e in ev.Log(file)] == list(range(1, length + 2))
    assert file.read_bytes().endswith(b'"state":"restored"}\n')


def test_no_log_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(NoLog, match="there is no log here; give the folder of a run"):
        render(tmp_path)


@pytest.mark.parametrize("cut", [1, 200, 4000, 20_000])
def test_any_byte_may_be_the_last(tmp_path: Path, cut: int) -> None:
    whole = logs.write(tmp_path, logs.game_day()) / "events.jsonl"
    whole.write_bytes(whole.read_bytes()[:cut])
    assert render(tmp_path).retrospective.verdict == "interrupted"
