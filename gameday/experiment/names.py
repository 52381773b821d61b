"""Names as the systems that own them check them. Each check raises ValueError with a sentence for the author.

Kubernetes: k8s.io/apimachinery pkg/util/validation (labels and subdomains of RFC 1123, qualified names) and
pkg/api/validation/path (what may be one segment of a path).
Slurm: https://slurm.schedmd.com/scontrol.html, where one name may mean many: `gpu-[0-9]`, `a,b`, `ALL`.
"""

from __future__ import annotations

import re

from gameday.experiment.text import describe

_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = rf"^{_PART}$"
DNS_SUBDOMAIN = rf"^{_PART}(\.{_PART})*$"
_LABEL = re.compile(_PART)
_SUBDOMAIN = re.compile(rf"{_PART}(\.{_PART})*")
_SLURM = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
LONGEST_LABEL, LONGEST_SUBDOMAIN, LONGEST_SLURM = 63, 253, 255


def dns_label(text: str) -> None:
    """RFC 1123 labels: namespaces, containers, services."""
    if len(text) > LONGEST_LABEL or not _LABEL.fullmatch(text):
        raise ValueError(
            "must be lowercase letters, digits and `-`, at most 63, not starting or ending with `-`, "
            f"found {describe(text)}"
        )


def dns_subdomain(text: str) -> None:
    """RFC 1123 subdomains, labels with dots between them: the names of most objects."""
    if len(text) > LONGEST_SUBDOMAIN or not _SUBDOMAIN.fullmatch(text):
        raise ValueError(
            "is no object's name: expected lowercase letters, digits, `-` and single `.`, at most 253, "
            f"beginning and ending with a letter or digit, found {describe(text)}"
        )


def path_segment(text: str) -> None:
    """What every name must be, of whatever kind: one segment of a URL, and no way out of it.

    Quoting would not do. An API server decodes the path before it takes it apart, so that `%2F` in a name
    is a slash again there.
    """
    if text in ("", ".", "..") or "/" in text or "%" in text or not text.isprintable():
        raise ValueError(
            f"is no object's name: it must not be `.` or `..`, nor hold `/` or `%`, found {describe(text)}"
        )


def qualified_name(text: str) -> None:
    """Keys of labels, annotations and taints, and resources: NAME or PREFIX/NAME."""
    prefix, slash, name = text.rpartition("/")
    if len(name) > LONGEST_LABEL or not _QUALIFIED.fullmatch(name):
        raise ValueError(
            "is no key: expected letters, digits, `-`, `_` and `.`, at most 63, beginning and ending with a "
            f"letter or digit, with an optional prefix such as example.com/, found {describe(text)}"
        )
    if slash:
        dns_subdomain(prefix)


def label_value(text: str) -> None:
    """Values of labels and taints; may be empty."""
    if text and (len(text) > LONGEST_LABEL or not _QUALIFIED.fullmatch(text)):
        raise ValueError(
            "is no label's value: expected letters, digits, `-`, `_` and `.`, at most 63, beginning and "
            f"ending with a letter or digit, found {describe(text)}"
        )


def slurm_name(text: str) -> None:
    """One node or partition, and not an expression for several, nor an option or another field."""
    if len(text) > LONGEST_SLURM or not _SLURM.fullmatch(text) or text.upper() == "ALL":
        raise ValueError(
            "is no name of one node or partition in Slurm: expected letters, digits, `-`, `_` and `.`, "
            f"not `ALL`, found {describe(text)}"
        )


def one_line(text: str) -> None:
    """Anything that can be shown on one line."""
    if not text.isprintable():
        raise ValueError(f"must be one line without control characters, found {describe(text)}")


_HOST = re.compile(r"(?:\[[^\]]*\]|[^@:\[\]]*)(?::\d{1,5})?")  # without name and password


def url(text: str) -> None:
    """An address that can be asked over HTTP. A password that breaks it in two is in no message."""
    from yarl import URL

    rest = text.partition("://")[2]
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :] and not _HOST.fullmatch(authority):
        raise ValueError(
            "an @ stands after the host of this URL: in its name and password write %40 for @, %2F for /, "
            "%3F for ? and %23 for #"
        )
    try:
        found = URL(text)
    except ValueError as error:
        raise ValueError(f"`{text}` is not a URL: {error}") from None
    if found.scheme not in ("http", "https") or not found.host or not text.isprintable():
        raise ValueError(f"`{text}` is not a URL; expected http://… or https://…")


def header_name(text: str) -> None:
    """A token, as RFC 9110 (section 5.6.2) has it."""
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
        raise ValueError(f"`{text}` is not the name of a header")


def header_value(text: str) -> None:
    """One line; a line end would begin another header."""
    if not all(c.isprintable() or c == "\t" for c in text):
        raise ValueError("the value of a header is one line, without control characters")


def prometheus_label(text: str) -> None:
    """Labels as PromQL takes them without quotes."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
        raise ValueError(f"`{text}` is not the name of a Prometheus label")
