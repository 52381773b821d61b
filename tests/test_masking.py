"""Secrets of every usual shape are masked, and what only looks alike stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.masking import mask, mask_text

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
        ("xoxb-123456789-abcdef", "xoxb-***"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123", "ghp_***"),
        ("--password=hunter2 --user=me", "--password=*** --user=me"),
        ("API_KEY: abc123", "API_KEY: ***"),
        ('"clientSecret":"s3cr3t"', '"clientSecret":"***"'),
        (r"{\"token\": \"abc\"}", r"{\"token\": \"***\"}"),
        ("postgres://me:pw@db:5432/x", "postgres://me:***@db:5432/x"),
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


@given(st.text())
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_text(mask_text(text)) == mask_text(text)
