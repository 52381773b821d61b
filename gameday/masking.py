"""Keeps secrets out of everything that people read: the log, evidence, reports, messages.

One masker for the whole project, so that what counts as a secret is said in one place. It errs on
the side of masking: a masked word costs a look at the cluster, a leaked one costs a rotation.

A secret is known in three ways: by its value, once `keep_secret` was told it; by the name before it
(`apiToken: …`, `--password …`); and by its own shape (a JWT, `ghp_…`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

MASK = "***"
PLAIN = "plain"  # the name of the encoding that changes nothing
SHORTEST = 6  # characters of a value that is masked wherever it turns up; a shorter one is part of anything
LONGEST_READ = 20_000  # characters of a text that are looked at, to show a few of them

_WORDS = (
    r"(?:password|passwd|passphrase|pwd|secret|token|credentials?|cookie|[_-]pass|"
    r"(?:api|access|private|secret|signing|encryption|master|account|auth|ssh)[_-]?key|key[_-]data)"
)
_PUBLIC = frozenset({"labels", "matchLabels", "nodeSelector"})  # they tell objects apart: only shapes count

_QUOTE = r"\\?[\"']?"  # perhaps of JSON within JSON
_IS = rf"{_QUOTE}[ \t]*[=:][ \t]*"
_VALUE = r"[^\s\"',;&)}\]\\]+"
_TOKEN_SCHEMES = r"(?:basic|bearer|token|apikey|negotiate|splunk)"
_PARAMETER_SCHEMES = r"(?:digest|hawk|oauth|aws4-hmac-sha256)"
_NONE = r"\*\*\*|\{\{|\{secretFrom"  # masked already, a template, a place in which a secret is
_PROSE = r"(?:is|are|was|must|can|or|and|to|for|with|in|of|the|as|not|has)\b"
_ENV = rf"(?:name|key){_IS}{_QUOTE}[\w.-]{{0,200}}{_WORDS}{_QUOTE}[\s,]*{_QUOTE}value{_IS}"

_AUTH = "authorization"
_NAMED = "password passwd passphrase pwd secret token credential cookie _pass -pass key"
# Hints, in small letters, of which any text that matches holds one; what stands before the secret and stays,
# as it tells the reader which one it was; and the secret.
_SHAPES: list[tuple[str, str, str]] = [
    ("private", r"-----BEGIN [A-Z ]*PRIVATE KEY-----", r"(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    # A scheme, and then a token, or parameters up to the line's end (RFC 9110, 11.4).
    (_AUTH, rf"authorization{_IS}{_QUOTE}{_TOKEN_SCHEMES}[ \t]+", r"[^\s\"',;\\]+"),
    (_AUTH, rf"authorization{_IS}{_QUOTE}{_PARAMETER_SCHEMES}[ \t]+", r"[^\r\n]+"),
    (
        _AUTH,
        rf"authorization{_IS}{_QUOTE}(?!(?:{_TOKEN_SCHEMES}|{_PARAMETER_SCHEMES})\b)",
        r"[^\s\"',;\\]+(?:[ \t]+[^\s\"',;\\]+)?",
    ),
    ("cookie", r"\b(?:set-)?cookie:[ \t]*", r"[^\r\n\"']+"),
    ("bearer", r"\bbearer\s+", r"[A-Za-z0-9._~+/=-]{8,}"),
    ("eyj", r"(?<![\w-])(?-i:eyJ)", r"[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"),
    ("akia asia", r"\b(?-i:AKIA|ASIA)", r"[0-9A-Z]{16}\b"),
    ("xox xapp-", r"\b(?:xox[a-z]|xapp)-", r"[\w-]{8,}"),
    ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\b(?:gh[pousr]|github_pat)_", r"\w{20,}"),
    ("gl", r"\bgl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-", r"[\w.-]{16,}"),
    (
        "hf_ npm_ dop_v1_ dckr_pat_ shpat_ sk_ rk_",
        r"\b(?:hf|npm|dop_v1|dckr_pat|shpat|(?:sk|rk)_(?:live|test))_",
        r"[a-z0-9_-]{16,}",
    ),
    (
        "nvapi- pypi- hvs. hvb. sk- gsk_",
        r"\b(?:nvapi-|pypi-|hv[sb]\.|sk-|gsk_)",
        r"(?=[\w-]{0,64}\d)[\w-]{16,}",
    ),
    ("aiza", r"\b(?-i:AIza)", r"[\w-]{30,}"),
    ("hooks.slack", r"\bhooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/", r"[\w/-]+"),
    ("webhook", r"\b(?:discord(?:app)?\.com/api/webhooks|webhook\.office\.com/webhookb2)/", r"[\w/@-]+"),
    (
        "?sig &sig x-amz-",
        r"[?&](?:sig|signature|x-amz-(?:signature|credential|security-token))=",
        r"[^\s&\"']+",
    ),
    ("auth", r"\"auth\\?\":\s*\\?\"", r"[a-z0-9+/=]{8,}"),  # of a registry, in a Docker configuration
    (_NAMED, rf"{_ENV}\"", r"(?:[^\"\\\r\n]|\\.)+(?=\")"),
    (_NAMED, rf"{_ENV}{_QUOTE}", _VALUE),
    (_NAMED, rf"{_WORDS}{_IS}\"", r"(?:[^\"\\\r\n]|\\.)+(?=\")"),
    (_NAMED, rf"{_WORDS}{_IS}'", r"[^'\r\n]+(?=')"),
    (_NAMED, rf"{_WORDS}{_IS}{_QUOTE}", _VALUE),
    (_NAMED, rf"(?<![\w-])--?[\w-]*{_WORDS}[ \t]+{_QUOTE}(?!-|{_PROSE})", r"[^\s\"',;]+"),
    ("-u --user", r"(?<!\S)(?:-u|--user)[ =][^\s:]{1,100}:", r"[^\s\"']+"),
    # Up to the last @: a password that is not percent-encoded may have others, and slashes. A port is none.
    ("@", r"://[^\s/:]*:", r"(?!\d{1,5}/)(?:[^\s/@]+(?:[/@][^\s\"'`]*)?|[/@][^\s\"'`]+)(?=@)"),
]
# Most texts hold none of them, and are done with at once.
_HINTS = tuple(dict.fromkeys(hint for hints, _, _ in _SHAPES for hint in hints.split()))


@cache
def _patterns() -> list[re.Pattern[str]]:
    """Compiled only where a text has one of the hints; atomic, since a mask is no secret."""
    return [re.compile(rf"((?>{kept}))(?!{_NONE}){secret}", re.IGNORECASE) for _, kept, secret in _SHAPES]


# Values that are secret in this process, and the variable that holds each; "" where no variable does.
_kept: dict[str, str] = {}
_kept_pattern: re.Pattern[str] | None = None
_longest = 0  # characters of the longest encoding of any of them


class TooShort(ValueError):
    """A secret that is part of so many texts that it can be hidden in none."""

    def __init__(self) -> None:
        super().__init__(
            f"is shorter than {SHORTEST} characters: it could not be masked wherever it turns up"
        )


def keep_secret(name: str, value: str) -> None:
    """From now on `value` is masked wherever it turns up in this process, also encoded. Raises TooShort.

    `name` is that of the variable which holds it, and stands in its place in records; "" where none does.
    """
    global _kept_pattern, _longest
    if not value or (value in _kept and (_kept[value] or not name)):
        return
    if len(value) < SHORTEST:
        raise TooShort
    _kept[value] = name
    found = sorted({f for v in _kept for f in forms(v).values()}, key=len, reverse=True)
    _kept_pattern, _longest = re.compile(_any_of(found)), len(found[0])


def keep_sent(headers: Mapping[str, str]) -> None:
    """Mask from now on what a request's headers log in with: whole, and each part that a server may repeat.

    Every header is taken for a login but those known as none. A part that could stand in any sentence (short,
    or an ordinary word) is masked only together with what it was sent with: masked everywhere, a password
    `default` would take a namespace's name from every report.
    """
    for name, value in headers.items():
        if MASK not in value and (names_secret(name) or not _HARMLESS.fullmatch(name)):
            value = value.strip()
            rest = value.partition(" ")[2].strip() if name.lower().endswith("authorization") else ""
            wholes = (rest, value, f"{name}: {value}")
            parts = _cookies(value) if name.lower() == "cookie" else _parts(value)
            for secret in (next((text for text in wholes if not _ordinary(text)), ""), *parts):
                if not _ordinary(secret):
                    keep_secret("", secret)


# They log nobody in: how to answer, whom or what one asks about, and who asked before.
_HARMLESS = re.compile(
    r"accept(-.*)?|content-.*|user-agent|host|connection|keep-alive|cache-control|pragma|expect|origin|referer|"
    r"range|te|upgrade.*|via|date|prefer|if-.*|x-forwarded-(for|host|port|proto|prefix)|x-requested-with|"
    r"traceparent|tracestate|x-(request|correlation)-id|x-scope-orgid|impersonate-.*|x-slurm-user-name|"
    r"x-github-api-version",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?=.{1,16}\Z)[A-Za-z][a-z]*(?:-[a-z]+)*")  # as most names of namespaces and themes are
_PART = re.compile(  # a parameter or a word (RFC 9110, 5.6); the = at the end of base64 makes no parameter
    r"(?:([\w!#$%&'*+.^`|~-]+)[ \t]*=[ \t]*(?!=*(?:[\s,;]|\Z)))?(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,;\"]+))"
)
_TOLD = frozenset({"username", "realm", "uri", "algorithm", "qop", "nc", "userhash", "signedheaders"})


def _ordinary(text: str) -> bool:
    """Whether a text may stand anywhere and mean something else."""
    return len(text) < SHORTEST or _WORD.fullmatch(text) is not None


def _parts(value: str) -> Iterator[str]:
    """Of a login with or without a scheme: a token, words, or parameters without those that are no secret."""
    scheme, _, login = value.partition(" ")
    if scheme.lower() == "basic":
        yield from _basic(login.strip())
        return
    for name, quoted, bare in _PART.findall(value):
        if name.lower() not in _TOLD:
            yield bare or re.sub(r"\\(.)", r"\1", quoted)


def _basic(login: str) -> Iterator[str]:
    """The password of HTTP's basic authentication (RFC 7617); one that is ordinary, with its user."""
    import base64

    with suppress(ValueError):
        pair = base64.b64decode(login).decode(errors="replace")
        password = pair.partition(":")[2]
        yield pair if _ordinary(password) else password


def _cookies(value: str) -> Iterator[str]:
    """The values of cookies (RFC 6265, 4.2), also without quotes and as a server decodes them."""
    from urllib.parse import unquote

    for pair in value.split(";"):
        name, equals, held = pair.strip().partition("=")
        bare = (held if equals else name).strip().strip('"')
        yield from (bare, unquote(bare))


def _any_of(texts: list[str], letters: int = 2) -> str:
    """A pattern for one of the texts, in their order; those that begin alike share that, for speed."""
    if not letters:
        return "|".join(map(re.escape, texts))
    alike: dict[str, list[str]] = {}
    for text in texts:
        alike.setdefault(text[0], []).append(text[1:])
    return "|".join(f"{re.escape(first)}(?:{_any_of(rest, letters - 1)})" for first, rest in alike.items())


def kept() -> dict[str, str]:
    """The values of variables that are secret in this process, with the variable; the longest first."""
    return {v: name for v, name in sorted(_kept.items(), key=lambda item: -len(item[0])) if name}


def kept_in(text: str) -> set[str]:
    """The variables whose secrets a text holds, in whatever encoding."""
    found = set() if _kept_pattern is None else set(_kept_pattern.findall(_unwrap(text, _kept_pattern)))
    return {name for value, name in kept().items() if found.intersection(forms(value).values())}


@cache
def forms(value: str) -> Mapping[str, str]:
    """A value in every encoding in which it may turn up, whole or a line of it, by the encoding's name.

    Records hold these names: what is new comes after all others of its kind.
    """
    lines = [line for line in value.splitlines() if len(line) >= SHORTEST]
    found: dict[str, str] = {}
    for place, text in (("", value), *((f"line{n}.", line) for n, line in enumerate(lines))):
        json_once = _numbered("json", _in_json(text))
        json_twice = {f"{k}.{n}": f for k, once in json_once.items() for n, f in enumerate(_in_json(once))}
        coded = {PLAIN: text} | json_once | json_twice
        coded |= _numbered("url", _in_urls(text)) | _numbered("html", _in_markup(text))
        coded |= _numbered("shell", _in_shells(text)) | _numbered("literal", _in_literals(text))
        if len(joined := " ".join(text.split())) >= SHORTEST:  # as text on one line is shown
            coded["joined"] = joined
        found |= {place + k: f for k, f in coded.items()}
    twice = (outer for inner in _in_base64(value) for outer in _in_base64(inner))
    found |= _numbered("base64-", _in_base64(value)) | _numbered("base64-twice", twice)
    return found | _numbered("bytes", _in_bytes(value))


def _numbered(what: str, coded: Iterator[str]) -> dict[str, str]:
    return {f"{what}{n}": form for n, form in enumerate(coded)}


def _in_json(text: str) -> Iterator[str]:
    """As Python writes JSON, and as Go does, which escapes what HTML could take for markup."""
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")  # as PHP does
        yield re.sub("[<>&\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", escaped)


def _in_urls(text: str) -> Iterator[str]:
    from urllib.parse import quote, quote_plus

    raw = text.encode(errors="replace")
    others = (quote(raw, safe=safe) for safe in _SAFE)
    for coded in (quote(raw, safe=""), quote(raw), quote_plus(raw), *others, quote_plus(raw, "!$'()*,/:?@")):
        yield coded
        yield re.sub("%..", lambda m: m[0].lower(), coded)


# What others leave as it is in a URL, besides letters, digits and `_.-~`.
_SAFE = (
    *("$&+:=@", "$&+,/:;=@", "$&+,;="),  # Go: url.PathEscape, URL.EscapedPath, UserPassword
    *("!'()*", "!#$&'()*+,/:;=?@"),  # JavaScript: encodeURIComponent, encodeURI
    *("!$&'()*+,/:;=@", "!$&'()*+,/:;=?@", "!$&'()*+,:;=@"),  # yarl: path, query; a segment by RFC 3986
)


def _in_shells(text: str) -> Iterator[str]:
    """Within single quotes as Python's shlex and people write it, within double ones, and without any."""
    yield text.replace("'", "'\"'\"'")
    yield text.replace("'", "'\\''")
    yield re.sub(r"([\"\\$`])", r"\\\1", text)
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)


def _in_literals(text: str) -> Iterator[str]:
    """Of Python, as texts and as bytes, and of Go (%q). Python escapes single quotes where there are both."""
    both = f"\"'{text}"
    for written in (repr(both)[4:-1], ascii(both)[4:-1], repr(both.encode(errors="replace"))[5:-1]):
        yield written
        yield (bare := written.replace("\\'", "'"))
        yield re.sub(r"\\\\|\\x(?:0[78bc]|[89a-f].)|\"", _in_go, bare)


def _in_go(match: re.Match[str]) -> str:
    """What Go's strconv.Quote writes in another way than Python."""
    own = {'"': '\\"', "\\x07": "\\a", "\\x08": "\\b", "\\x0b": "\\v", "\\x0c": "\\f", "\\\\": "\\\\"}
    return own.get(match[0]) or match[0].replace("x", "u00")


def _in_markup(text: str) -> Iterator[str]:
    """Quotes have a name, a decimal and a hexadecimal number in use; some leave them as they are."""
    import html

    bare = html.escape(text, quote=False)
    yield bare
    for double in ('"', "&quot;", "&#34;"):
        for single in ("'", "&#39;", "&#x27;", "&apos;"):
            yield bare.replace('"', double).replace("'", single)


def _in_base64(value: str) -> Iterator[str]:
    import base64

    raw = value.encode(errors="replace")
    for before in range(3):  # in front of it, modulo the three bytes of which base64 makes four characters
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        whole = (before + len(raw)) * 8 // 6  # characters that do not depend on what comes after
        inside = coded[(before * 8 + 5) // 6 : whole]
        if len(inside) >= SHORTEST:
            yield inside
            yield inside.replace("+", "-").replace("/", "_")


def _in_bytes(value: str) -> Iterator[str]:
    """In hexadecimal, and in lines of base64 as base64(1) and openssl write them."""
    import base64

    raw = value.encode(errors="replace")
    yield raw.hex()
    yield raw.hex().upper()
    coded = base64.b64encode(raw).decode()
    for width in (76, 64):
        yield "\n".join(coded[at : at + width] for at in range(0, len(coded), width))


def names_secret(name: str) -> bool:
    """Whether what has this name is a secret."""
    return _names()[0].fullmatch(name) is not None


@cache
def _names() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Names of secrets, and the options of commands that take one."""
    name = re.compile(rf".*(?:{_WORDS}|authorization)|pgpass", re.IGNORECASE | re.DOTALL)
    return name, re.compile(rf"--?[\w-]*{_WORDS}", re.IGNORECASE)


def digest(value: Any) -> str:
    """A mark in place of a secret: enough to tell whether two are the same."""
    import hashlib

    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def mask_text(text: str) -> str:
    """`text` with every secret it seems to hold replaced by ***."""
    text = _mask_kept(text)
    small = text.lower()
    if not any(hint in small for hint in _HINTS):
        return text
    for pattern in _patterns():
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def mask_beginning(text: str) -> str:
    """`text`, which was cut off, masked: without its end, where a part of a secret may be."""
    shown = mask_text(text)
    return shown[: max(0, len(shown) - _longest)]


def clip(text: str | bytes, most: int, *, one_line: bool = False) -> str:
    """At most `most` characters, for people: the one place where a text from elsewhere is cut.

    It is masked before that: nobody knows a part of a secret for what it is. Of a long text the beginning is
    looked at.
    """
    reach = LONGEST_READ + _longest
    if isinstance(text, bytes):
        text = text[: 4 * (reach + 1)].decode(errors="replace")  # a character of UTF-8 has at most 4 bytes
    cut = len(text) > reach
    shown = mask_beginning(text[:reach]) if cut else mask_text(text)
    if one_line:
        shown = " ".join(shown.split())
    return shown[: most - 1] + "…" if cut or len(shown) > most else shown


def _mask_kept(text: str) -> str:
    if _kept_pattern is None:
        return text
    return _kept_pattern.sub(MASK, _unwrap(_kept_pattern.sub(MASK, text), _kept_pattern))


_BREAK = r"(?:(?:\\r)?\\n|\r?\n[ \t]*| )"  # also as JSON has it, or where lines were joined
_CODED = r"[A-Za-z0-9+/_-]"
_WRAPPED = re.compile(rf"(?<!{_CODED}){_CODED}{{20,}}+(?:{_BREAK}{_CODED}{{20,}}+)*{_BREAK}{_CODED}++")


def _unwrap(text: str, pattern: re.Pattern[str]) -> str:
    """`text` with its blocks of base64 or hexadecimal in one line, where the pattern then finds something."""

    def joined(block: re.Match[str]) -> str:
        line = re.sub(_BREAK, "", block[0])
        return line if pattern.search(line) else block[0]

    return _WRAPPED.sub(joined, text)


def _key(key: Any) -> Any:
    """A key tells what is below it: only a secret's value is hidden in it, not what looks like one."""
    return _mask_kept(key) if isinstance(key, str) else key


def mask(value: Any) -> Any:
    """A copy of plain data with secrets masked: by key (`apiToken: …`), by shape, and in Secret objects."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, list | tuple):
        return _mask_list(value)
    if isinstance(value, Mapping):
        return _mask_mapping(value)
    return MASK if _kept and not isinstance(value, bool) and str(value) in _kept else value


def _mask_list(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Arguments of a command, too: what follows `--password` is one."""
    masked: list[Any] = []
    hide = False
    for item in items:
        text = isinstance(item, str)
        masked.append(MASK if hide and text and not item.startswith("-") else mask(item))
        hide = text and _names()[1].fullmatch(item) is not None
    return masked


def _mask_mapping(data: Mapping[Any, Any]) -> dict[Any, Any]:
    hidden = {"data", "stringData"} if data.get("kind") == "Secret" else set()
    if names_secret(str(data.get("name") or data.get("key") or "")):  # a variable of a container, a header
        hidden.add("value")
    return {_key(k): _hide(v) if k in hidden else _mask_entry(str(k), v) for k, v in data.items()}


def _mask_entry(key: str, value: Any) -> Any:
    """A scalar under a key that names a secret is hidden whole; structure below it is looked into."""
    if key in _PUBLIC and isinstance(value, Mapping):
        return {_key(k): mask(v) for k, v in value.items()}
    if key == "secrets" and isinstance(value, Mapping):  # of Chaos Toolkit: literals, or where they are
        return {_key(k): v if _is_place(v) else _mask_entry("secrets", v) for k, v in value.items()}
    if not names_secret(key) and key != "secrets":
        return mask(value)
    if isinstance(value, list | tuple):
        return [MASK if _scalar(v) else mask(v) for v in value]
    return MASK if _scalar(value) else mask(value)


def _is_place(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") in ("env", "vault")


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _hide(value: Any) -> Any:
    return (
        dict.fromkeys(map(_key, value), MASK)
        if isinstance(value, Mapping)
        else value
        if value is None
        else MASK
    )
