"""Keeps secrets out of everything that people read: evidence, reports, messages.

One masker for the whole project, so that what counts as a secret is said in one place. It errs on
the side of masking: a masked word costs a look at the cluster, a leaked one costs a rotation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_WORDS = (
    r"(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|cookie)"
)
_SECRET_KEY = re.compile(rf".*{_WORDS}|authorization", re.IGNORECASE)

# Each pattern keeps what tells the reader which secret it was (its first group), and masks the rest.
_PATTERNS = [
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(
        r"(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|digest)?\s*)[^\s\"',;]+", re.IGNORECASE
    ),
    re.compile(r"(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"(\beyJ)[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"),
    re.compile(r"(\b(?:AKIA|ASIA))[0-9A-Z]{16}\b"),
    re.compile(r"(\b(?:xox[a-z]|xapp)-)[\w-]{8,}"),
    re.compile(r"(\bgh[pousr]_|\bgithub_pat_)\w{20,}"),
    re.compile(
        rf"(\b[\w.-]*{_WORDS}\\?[\"']?\s*[=:]\s*\\?[\"']?)(?!\*\*\*)[^\s\"',;&)}}\]\\]+", re.IGNORECASE
    ),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE),
]


def mask_text(text: str) -> str:
    """`text` with every secret it seems to hold replaced by ***."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def mask(value: Any) -> Any:
    """A copy of plain data with secrets masked: by key (`apiToken: …`), by shape, and in Secret objects."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    if isinstance(value, Mapping):
        hidden = ("data", "stringData") if value.get("kind") == "Secret" else ()
        return {k: _hide(v) if k in hidden else _mask_entry(str(k), v) for k, v in value.items()}
    return value


def _mask_entry(key: str, value: Any) -> Any:
    """A scalar under a key that names a secret is hidden whole; structure below it is looked into."""
    scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
    return MASK if scalar and _SECRET_KEY.fullmatch(key) else mask(value)


def _hide(value: Any) -> Any:
    return dict.fromkeys(value, MASK) if isinstance(value, Mapping) else MASK
