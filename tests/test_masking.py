"""Secrets of every usual shape are masked, and what only looks alike stays readable."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from gameday import events, masking
from gameday.experiment.text import shorten
from gameday.masking import mask, mask_text
from tests.support.kept import nothing_kept

pytestmark = pytest.mark.fast
PEM = "-----BEGIN RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ('{"authorization": "Basic dXNlcjpwYXNz"}', '{"authorization": "Basic ***"}'),
        ("got bearer 0123456789abcdef here", "got bearer *** here"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!", "jwt eyJ***!"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA***"),
        ("ASIAIOSFODNN7EXAMPLE", "ASIA***"),
        ("xoxb-123456789-abcdef", "xoxb-***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123", "ghp_***"),
        ("--password=hunter2 --user=me", "--password=*** --user=me"),
        ("API_KEY: abc123", "API_KEY: ***"),
        ('"clientSecret":"s3cr3t"', '"clientSecret":"***"'),
        (r"{\"token\": \"abc\"}", r"{\"token\": \"***\"}"),
        ("postgres://me:pw@db:5432/x", "postgres://me:***@db:5432/x"),
        ("at http://me:p@ss/w@db:9/x, no", "at http://me:***@db:9/x, no"),
        ('{"a": "http://me@corp.example:/pw@db"}', '{"a": "http://me@corp.example:***@db"}'),
        (f"{PEM}\nabc\n{PEM.replace('BEGIN', 'END')}\nrest", f"{PEM}***\nrest"),
        (f"{PEM}\nabc cut off", f"{PEM}***"),
    ],
)  # fmt: skip
def test_secrets(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        'rate(tokens_total{token_type="output"}[1m])',
        "secretName: db-credentials",
        "http://prometheus:9090/graph",
        "docker-pullable://registry:5000/image@sha256:0123",
        "Node gpu-3 is schedulable again",
        "the bearer of this note",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask_text(text) == text


def test_documents() -> None:
    document = {
        "variables": {"apiToken": "x", "latency": "500ms", "password": 12, "passwordless": True},
        "volumes": [{"secret": {"secretName": "db"}}],
        "object": {"kind": "Secret", "data": {"a": "Yg=="}, "metadata": {"name": "s"}},
    }
    assert mask(document) == {
        "variables": {"apiToken": "***", "latency": "500ms", "password": "***", "passwordless": True},
        "volumes": [{"secret": {"secretName": "db"}}],
        "object": {"kind": "Secret", "data": {"a": "***"}, "metadata": {"name": "s"}},
    }


# How secrets come: what says that one follows, with the secret as {}.
NAMED = [
    "Authorization: Token {}",
    "Authorization: {}",
    "authorization: ApiKey {}",
    'Authorization: Digest username="u", response="{}"',
    "Cookie: theme=dark; session={}",
    "gameday login --password {} --verbose",
    "helm --api-key {}",
    "curl -u admin:{} https://x",
    "password={}",
    "DB_PASS={}",
    "AWS_SECRET_ACCESS_KEY={}",
    'password: "{}"',
    "client-key-data: {}",
    '{{"name": "DB_PASSWORD", "value": "{}"}}',
    "- name: DB_PASSWORD\n  value: {}",
    "- {{name: API_TOKEN, value: {}}}",
    '{{"auths": {{"nvcr.io": {{"auth": "{}"}}}}}}',
    "https://x/?user=a&sig={}&v=1",
    "postgres://me:{}@db:5432/x",
    "https://hooks.slack.com/services/{}",
]
SHAPED = [
    *(f"{prefix}{{}}" for prefix in ("glpat-", "glrt-", "hf_", "npm_", "dop_v1_", "dckr_pat_", "shpat_")),
    *(f"{prefix}{{}}" for prefix in ("sk-", "sk-proj-", "sk_live_", "rk_test_", "gsk_", "nvapi-", "pypi-")),
    *(f"{prefix}{{}}" for prefix in ("hvs.", "hvb.", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    *("xoxb-{}", "xapp-{}", "AIza{}{}", "Bearer {}", "eyJ{}.{}"),
    *("https://discord.com/api/webhooks/1/{}", "https://x.webhook.office.com/webhookb2/{}"),
    *("https://x/?X-Amz-Signature={}", "passwd={}", "passphrase: {}", "pwd={}", "credential={}"),
]
SECRETS = st.from_regex(r"[A-Za-z]{11}[0-9][A-Za-z0-9]{10}", fullmatch=True)


@pytest.mark.parametrize("form", NAMED + SHAPED)
@settings(max_examples=8)
@given(SECRETS, st.sampled_from(["", "error: ", "said '", '{"x": "']))
def test_every_kind_of_secret_in_a_text(form: str, secret: str, before: str) -> None:
    text = before + form.format(secret, secret)
    masked = mask_text(text)
    assert secret not in masked, masked
    assert masked == mask_text(masked)
    assert secret not in str(mask({"message": text, "args": [text]}))


@given(
    SECRETS,
    st.sampled_from(
        [
            lambda s: {"env": [{"name": "DB_PASSWORD", "value": s}]},
            lambda s: {"headers": [{"key": "Authorization", "value": f"Token {s}"}]},
            lambda s: {"args": ["--password", s, "--user", "me"]},
            lambda s: {"command": ["login", "-token", s]},
            lambda s: {"secrets": {"app": {"user": s}}},
            lambda s: {"passwords": [{"password": [s]}]},
            lambda s: {"kind": "Secret", "stringData": {"a": s}},
        ]
    ),
)
def test_every_kind_of_secret_in_a_document(secret: str, form: Callable[[str], object]) -> None:
    """And all that is no secret stays."""
    masked = str(mask(form(secret)))
    assert masked == str(form("***")).replace("Token ***", "***")


def test_what_is_said_of_secrets_and_holds_none_stays() -> None:
    secrets = {"secrets": {"app": {"key": {"type": "env", "key": "APP_KEY"}}}}
    env = {"env": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}
    labels = {"labels": {"secret": "tls-cert"}, "args": ["--token-file", "/run/token"]}
    assert [mask(d) for d in (secrets, env, labels)] == [secrets, env, labels]
    for text in (
        "flag --password is required, or --token",
        "disk-1234567890abcdef12 and task-sk-ab",
        "authorization mode RBAC",
        "max_tokens=4096 tokens: 12",
        "1 Deployment in platform: job-queue-controller",
    ):
        assert mask_text(text) == text


@pytest.mark.parametrize("file", sorted(Path("experiments").glob("*.yaml")), ids=lambda p: p.name)
def test_ordinary_experiments_hold_no_secret(file: Path) -> None:
    assert mask_text(file.read_text()) == file.read_text()
    document = yaml.safe_load(file.read_text())
    assert mask(document) == document


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), max_size=30))
def test_ordinary_words_stay(words: list[str]) -> None:
    assert mask_text(" ".join(words)) == " ".join(words)


@given(secret=st.text(min_size=6, max_size=40).filter(lambda s: "*" not in s), around=st.binary(max_size=5))
def test_a_value_that_was_named_is_masked_however_it_is_written(secret: str, around: bytes) -> None:
    with nothing_kept():
        masking.keep_secret("token", secret)
        raw = secret.encode(errors="replace")
        coded = base64.b64encode(around + raw + around).decode()
        forms = [f"a{secret}b", json.dumps({"x": secret}), quote(secret, safe="")]
        assert not [f for f in map(mask_text, forms) if secret in f or json.dumps(secret)[1:-1] in f]
        assert mask_text(coded) != coded
        event = masking.mask({"message": secret, "number": 1})
        assert event == {"message": "***", "number": 1}


ENCODINGS = [
    json.dumps,
    lambda s: json.dumps(json.dumps({"x": s})),
    lambda s: json.dumps(s).replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"),
    lambda s: quote(s, safe=""),
    lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s, safe="")),
    lambda s: urlencode({"x": s}),
    html.escape,
    lambda s: html.escape(s).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    lambda s: quote(s, safe="$&+:=@"),  # Go's url.PathEscape
    lambda s: quote(s, safe="$&+,/:;=@"),  # Go's URL.EscapedPath
    lambda s: quote(s, safe="!'()*"),  # encodeURIComponent
    lambda s: URL.build(scheme="http", host="x", path=f"/{s}").raw_path.removeprefix("/"),
    lambda s: URL.build(scheme="http", host="x", query={"x": s}).raw_query_string,
    shlex.quote,
    lambda s: s.replace("'", r"'\''"),
    lambda s: re.sub(r"([^\w@%+=:,./-])", r"\\\1", s),  # bash's printf %q
    repr,
    ascii,
    lambda s: repr(s.encode()).removeprefix("b"),
    lambda s: s.encode().hex(),
    lambda s: " ".join(s.split()),
]


@given(
    st.text(alphabet="aB3 &<>\"'+/=%\\é$;,:@!\x07", min_size=8, max_size=16).map(lambda s: f"q{s}z"),
    st.sampled_from(ENCODINGS),
)
def test_a_value_is_masked_in_every_encoding(secret: str, encode: Any) -> None:
    with nothing_kept():
        masking.keep_secret("pin", secret)
        coded = encode(secret).removeprefix("x=")
        inner = coded[1:-1] if coded[0] in "'\"" else coded
        assert mask_text(f"[{inner}]") == "[***]" or inner not in mask_text(f"[{inner}]")
        assert mask({"a": {secret: 1}, "labels": {secret: "x"}}) == {"a": {"***": 1}, "labels": {"***": "x"}}


@pytest.mark.parametrize(
    ("secret", "written"),
    [
        ("caf\u00e9 'x\" \\ \x07 \xa0-12345", '"caf\u00e9 \'x\\" \\\\ \\a \\u00a0-12345"'),
        ("caf\u00e9 \x00\x7f \U0001f600", r'"caf\u00e9 \x00\x7f \U0001f600"'),  # %+q
    ],
)
def test_a_value_as_go_quotes_it(secret: str, written: str) -> None:
    """By Go 1.25: fmt.Printf("%q")."""
    masking.keep_secret("token", secret)
    assert mask_text(written) == '"***"'


LINED = [
    lambda coded: coded,
    lambda coded: coded.replace("\n", "\r\n"),
    lambda coded: coded.replace("\n", "\n    "),  # in YAML
    lambda coded: json.dumps(coded),
    lambda coded: " ".join(coded.split()),
]


@given(
    st.integers(0, 80),
    st.integers(0, 80),
    st.sampled_from([60, 64, 76]),
    st.sampled_from(LINED),
    st.booleans(),
)
def test_a_value_in_lines_of_base64_or_hexadecimal(
    before: int, after: int, width: int, lined: Callable[[str], str], in_hex: bool
) -> None:
    """As base64(1), openssl, PEM and xxd write it, wherever it begins and whatever comes after it."""
    secret = "kP3a9Xq7Zt0LmN4vB2cR8yW1sE6uHdJ5fGkP3a9Xq7Zt0LmN4vB2cR8yW1sE6uHdJ5fGzzQ"
    with nothing_kept():
        masking.keep_secret("token", secret)
        raw = b"\x01" * before + secret.encode() + b"\x02" * after
        coded = raw.hex() if in_hex else base64.b64encode(raw).decode()
        lines = lined("\n".join(coded[at : at + width] for at in range(0, len(coded), width)))
        shown = mask_text(f"it said:\n{lines}\nand ended")
    kept = re.sub(r"\s|\\n|\\r", "", shown)
    assert "***" in shown
    assert not [
        at for at in range(len(coded) - 12) if len(set(part := coded[at : at + 12])) > 6 and part in kept
    ]


def test_lines_that_hold_no_secret_stay_lines() -> None:
    masking.keep_secret("token", "correct-horse-battery")
    text = base64.encodebytes(bytes(range(200))).decode() + "and more"
    assert mask_text(f"{text} correct-horse-battery") == f"{text} ***"


def test_encodings_keep_their_names() -> None:
    """Records hold them."""
    forms = masking.forms("a/b <é>+c d")
    names = [*(f"url{n}" for n in range(6)), *(f"base64-{n}" for n in range(6))]
    assert [forms[name] for name in names] == [
        *("a%2Fb%20%3C%C3%A9%3E%2Bc%20d", "a%2fb%20%3c%c3%a9%3e%2bc%20d"),
        *("a/b%20%3C%C3%A9%3E%2Bc%20d", "a/b%20%3c%c3%a9%3e%2bc%20d"),
        *("a%2Fb+%3C%C3%A9%3E%2Bc+d", "a%2fb+%3c%c3%a9%3e%2bc+d"),
        *("YS9iIDzDqT4rYyBk", "YS9iIDzDqT4rYyBk", "EvYiA8w6k+K2MgZ", "EvYiA8w6k-K2MgZ"),
        *("hL2IgPMOpPitjIG", "hL2IgPMOpPitjIG"),
    ]


def test_an_event_is_masked_where_it_is_written() -> None:
    masking.keep_secret("token", "s3cr3t-value")
    samples = events.Samples(query=1, series=[{"labels": {"secret": "tls"}, "points": [[1, 2.0]]}])
    assert events.masked(samples) == samples
    note = events.masked(events.Note(author="me", text="it is s3cr3t-value, or password=abc"))
    assert note.text == "it is ***, or password=***"
    alert = events.Alert(alert="A", state="firing", labels={"secret": "tls", "x": "s3cr3t-value"})
    assert events.masked(alert).labels == {"secret": "tls", "x": "***"}
    line = events.encode(events.Note(author="me", text="\u202eevil\x9b31m"))
    assert line.isascii()
    assert json.loads(line)["text"] == "\u202eevil\x9b31m"


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_text(mask_text(text)) == mask_text(text)


@given(st.integers(0, 160))
def test_a_secret_is_not_cut_before_it_is_masked(before: int) -> None:
    secret = "0123456789-VERY-SECRET-VALUE"
    with nothing_kept():
        masking.keep_secret("token", secret)
        cut = shorten("x" * before + " " + secret + " " + "y" * 200, 120)
    assert "0123" not in cut
    assert cut.startswith("x" * min(before, 100))
