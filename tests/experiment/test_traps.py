"""Each of YAML's traps is named for what it is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gameday.experiment.loader import load
from tests.experiment.support import Write, only, problems

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("bound", "column", "quoted"),
    [
        ("> 5", 11, "'> 5'"),
        (">5", 11, None),
        (">= 90% of baseline   # most of it", 11, "'>= 90% of baseline'"),
        ("| 5", 11, "'| 5'"),
        ("|", 11, None),
    ],
)
def test_a_bound_read_as_a_block_of_text(write: Write, bound: str, column: int, quoted: str | None) -> None:
    shown = only(write(("is: < {{ latency }}", f"is: {bound}")))
    assert shown.startswith(
        f"experiment.yaml:14:{column}: spec.steadyState[0].is: `{bound[0]}` starts a block of text"
    )
    assert "put the bound in quotes" in shown
    assert quoted is None or shown.endswith(quoted)


def test_a_bound_in_braces(write: Write) -> None:
    path = write(("  method:", "  abortIf:\n    - {acmeQuery: up, is: > 5, for: 10s}\n  method:"))
    assert only(path).startswith("experiment.yaml:16:27: spec.abortIf[0].is: `>` starts a block of text")


def test_not_equal_read_as_a_tag(write: Write) -> None:
    assert "a value that starts with `!` as a tag; put it in quotes" in only(
        write(("is: < {{ latency }}", "is: != 0"))
    )


@pytest.mark.parametrize("word", ["on", "yes", "no", "off", "Yes", "OFF"])
def test_words_read_as_booleans(write: Write, word: str) -> None:
    meaning = "true" if word.lower() in ("on", "yes") else "false"
    message = f"YAML reads `{word}` as {meaning}; put it in quotes"
    assert (
        only(write(("title: Two nodes may break", f"title: {word}")))
        == f"experiment.yaml:6:10: spec.title: {message}"
    )
    assert (
        only(write(("is: < {{ latency }}", f"is: {word}")))
        == f"experiment.yaml:14:11: spec.steadyState[0].is: {message}"
    )
    assert message in only(write(("count: 2", f"count: 2, flag: {word}")))
    assert f"YAML reads the key `{word}`" in only(write(("kind: E", f"{word}: 1\nkind: E")))


def test_words_are_booleans_where_one_is_expected(write: Write) -> None:
    assert load(write(("for: 1m", "steadyBetween: no"))).experiment.spec.method[0].steady_between is False


def test_a_date_and_a_time_stay_text(write: Write) -> None:
    path = write(
        ("name: two-nodes", "name: two-nodes\n  labels: {on-date: 2026-11-22, at: 1:30, octal: 010}")
    )
    assert load(path).experiment.metadata.labels == {"on-date": "2026-11-22", "at": "1:30", "octal": "010"}


def test_a_key_twice(write: Write) -> None:
    path = write(("for: 1m", "for: 1m\n      for: 2m"))
    assert only(path) == (
        "experiment.yaml:19:7: spec.method[0].for: the key is there twice, first in line 18; expected it once"
    )


def test_tabs(write: Write) -> None:
    assert only(write(("  title", "\ttitle"))) == (
        "experiment.yaml:6:1: a tab where YAML wants spaces; indent with spaces only"
    )


def test_a_template_without_quotes(write: Write) -> None:
    assert "spec.method[0].acmeBreak.nodes.pick: YAML reads unquoted `{{` as a mapping" in only(
        write(('"{{ count }}"', "{{ count }}"))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty; expected apiVersion, kind, metadata and spec"),
        ("# only this\n", "1:1: the file is empty; expected apiVersion, kind, metadata and spec"),
        ("---\n", "2:1: the file is empty; expected apiVersion, kind, metadata and spec"),
        ("- a\n", "1:1: found a list at the top; expected apiVersion, kind, metadata and spec"),
        ("a\n", '1:1: found the text "a" at the top; expected apiVersion, kind, metadata and spec'),
        ("a: 1\n---\nb: 1\n", "2:1: a second document starts here; expected one per file"),
        ("a: 1\nb: &x [*x]\n", "2:8: the alias *x stands inside what it names; it would never end"),
        ("a: *x\n", "1:4: the alias *x names nothing; expected &x before it"),
        ("a: 'x\nb: 1\n", "3:1: a quote is never closed; it was opened in line 1"),
        ("a: [sum(x{b=1})]\n", "1:10: expected `,` or `]` for what was opened in line 1; put a text"),
        ("a: b: c\n", "1:5: `: ` starts a value where none can be"),
        ("a: @x\n", "1:4: a value can't start with `@`; put it in quotes"),
        ("a\nb: 1\n", "2:2: `: ` starts a value where none can be"),
        ("[" * 100_000, "1:61: nested more than 60 deep"),
        ("- " * 100_000, "1:121: nested more than 60 deep"),
        (
            "a: !!python/object/apply:os.system [x]\n",
            "1:4: a: the tag `!!python/object/apply:os.system` means nothing",
        ),
        ("? [a]\n: b\n", "1:3: a key must be text, found a list or a mapping"),
        ("1: b\n", "1:1: 1: a key must be text; put `1` in quotes"),
        ("<<: 3\n", "1:1: <<: expected a mapping to merge"),
    ],
)
def test_what_is_no_experiment(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert any(each.startswith(f"x.yaml:{message}") for each in problems(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xe9\n", "x.yaml:2:4: the file is not UTF-8 text; found the byte 0xe9"),
        ("a: 1".encode("utf-16"), "x.yaml:1:1: the file is not UTF-8 text; it is UTF-16"),
        (b"a: 1\nbc\0: 2\n", "x.yaml:2:3: found a NUL byte; expected text"),
        (b"a: \x1b[31m\n", "x.yaml:1:4: found the control character U+001B; expected text"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert only(path) == message


def test_a_byte_order_mark_and_windows_lines_are_fine(write: Write) -> None:
    path = write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(path).experiment.metadata.name == "two-nodes"


def test_anchors_and_merges(write: Write) -> None:
    probes = """\
    - &probe
      name: p99
      acmeQuery: up
      is: < {{ latency }}
      interval: 1s
    - <<: *probe
      name: p50
"""
    text = write().read_text()
    start, end = text.index("    - name: p99"), text.index("  method:")
    first, second = load(write((text[start:end], probes))).experiment.spec.steady_state
    assert (second.name, second.interval, second.is_) == ("p50", 1.0, first.is_)


def test_an_anchor_bomb_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    texts = f"a: &a {'x' * 900_000}\nb: [{', '.join(['*a'] * 20_000)}]"
    chain = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 1000))])
    merges = "\n".join(
        ["a0: &a0 {k: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))]
    )
    for text, part in (
        ("\n".join(lines), "x.yaml:5:"),
        (texts, "has more than 50,000 values"),
        (chain, "nested more than 60 deep"),
        (merges, "has more than 50,000 values"),
    ):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        start = time.process_time()
        assert part in only(path)
        assert time.process_time() - start < 2
