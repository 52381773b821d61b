"""Output to a place that is full, blocked or gone: nobody waits for it, and little is lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday import events
from gameday.run.log import Log
from gameday.sink import Sink
from tests.support.polling import until

pytestmark = pytest.mark.fast


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(fd)


def _read(fd: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(fd, size - len(found))
    return found


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=20))
def test_all_of_it_in_order_whenever_it_is_read(chunks: list[bytes]) -> None:
    reading, writing = os.pipe()
    sink = Sink(writing, lasting=True)
    for chunk in chunks:
        sink.put(chunk)
    assert _read(reading, sum(map(len, chunks))) == b"".join(chunks)
    assert sink.close(5)
    os.close(reading)


def test_a_reader_that_stopped_holds_nobody_up(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    sink = Sink(writing, lasting=False, most=20_000)
    for _ in range(10):
        sink.put(b"x" * 3_000)
    assert sink.lost == 4
    assert not sink.drain(0.1)
    assert _read(reading, 18_000) == b"x" * 18_000
    assert sink.drain(5)


def test_a_reader_that_went_away_is_told_nothing_more(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    sink = Sink(writing, lasting=False)
    sink.put(b"x")
    assert not sink.drain(5)
    sink.put(b"y")
    assert sink.trouble == os.strerror(errno.EPIPE)


def test_what_is_expendable_goes_first(pipe: tuple[int, int]) -> None:
    sink = Sink(pipe[1], lasting=True, most=20_000)
    sink.put(b"x" * 9_000)
    sink.put(b"sample" * 1_000, expendable=True)
    sink.put(b"y" * 9_000)
    assert sink.lost == 1
    assert _read(pipe[0], 18_000) == b"x" * 9_000 + b"y" * 9_000


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond 1,000 bytes; the limit is lifted when the test is over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_on_a_full_disk_is_whole_when_there_is_room_again(tmp_path: Path, full_disk: None) -> None:
    log = Log(tmp_path / "events.jsonl")
    heard: list[events.Event] = []
    log.listeners.append(heard.append)
    for number in range(50):
        log.emit(events.Note(author="me", text=f"note {number} " + "x" * 40))
    until(lambda: bool(log._file.trouble), "the disk is full")
    log.emit(events.Note(author="me", text="after"))
    assert any("kept in memory until there is room" in getattr(e, "message", "") for e in heard)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(heard) + 1))


def test_a_listener_that_fails_is_told_of_once_and_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path / "events.jsonl")
    heard: list[str] = []

    def broken(event: events.Event) -> None:
        heard.append(event.type)
        raise ZeroDivisionError

    log.listeners.append(broken)
    for _ in range(3):
        log.emit(events.Phase(phase="method"))
    log.close()
    told = [e for e in events.Log(tmp_path / "events.jsonl") if isinstance(e, events.Warn)]
    assert len(told) == 1
    assert "broken failed and may miss events: ZeroDivisionError" in told[0].message
    assert heard == ["phase", "warn", "phase", "phase"]


@given(st.text(), st.floats(), st.recursive(st.text() | st.binary(), lambda d: st.dictionaries(st.text(), d)))
def test_whatever_an_event_holds_is_written(text: str, number: float, data: object) -> None:
    """Lone surrogates, NaN, bytes: a log that could not hold them would stop what writes it."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        log = Log(Path(folder) / "events.jsonl")
        log.emit(events.Probed(probe=text, state="holds", value=number, message=text + "\ud800"))
        log.emit(events.Planned(plan={"data": data}))
        log.close()
        lines = (Path(folder) / "events.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == [1, 2]
