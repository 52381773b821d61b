"""Which context kubeconfigs mean, and what is wrong with them: the library says it in Python's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_load

from gameday.experiment.text import describe

_PARTS = {"clusters": "cluster", "contexts": "context", "users": "user"}


def existing(files: str) -> list[Path]:
    """The files of $KUBECONFIG that are there and hold something: client-go passes over the others.

    Where all are empty they stay, for the refusal to name them.
    """
    there = [path for f in files.split(":") if f and (path := Path(f).expanduser()).exists()]
    return [path for path in there if not _empty(path)] or there


def _empty(path: Path) -> bool:
    """Whether nothing but comments is in a file."""
    try:
        lines = map(str.strip, path.read_text().splitlines())
    except (OSError, ValueError):
        return False  # the library can't read it either, and says why
    return all(line in ("", "---", "null") or line.startswith("#") for line in lines)


def current_context(files: str) -> Any:
    """The current context: that of the first file which names one, as client-go merges them; else None.

    The library takes the last file's. Of clusters, contexts and users of one name it takes the first, whole,
    as client-go does (clientcmd/loader.go).
    """
    try:
        documents = [safe_load(path.read_text()) for path in existing(files)]
        return next((d["current-context"] for d in documents if d.get("current-context")), None)
    except (YAMLError, OSError, ValueError, AttributeError):
        return None  # the library can't read them either, and says why


def contexts(files: str) -> list[str]:
    """The names of the contexts in kubeconfigs, as far as these can be read."""
    try:
        documents = [safe_load(path.read_text()) for path in existing(files)]
        return sorted({str(c["name"]) for d in documents for c in d["contexts"]})
    except (YAMLError, OSError, ValueError, TypeError, KeyError):
        return []


def unfit(files: str, context: str | None) -> str:
    """The first thing that is not as in a kubeconfig, or is not there; "" where none is found."""
    named: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in _PARTS}
    chosen = context or current_context(files)
    for path in existing(files):
        try:
            document = safe_load(path.read_text())
        except (YAMLError, OSError, ValueError):
            return ""  # the library says where
        if not isinstance(document, dict):
            return f"{path} holds {_kind(document)}; expected a mapping with clusters, contexts and users"
        for part, one in _PARTS.items():
            items = document.get(part) or []
            if not isinstance(items, list):
                return f"{part} in {path} is {_kind(items)}; expected a list"
            for number, item in enumerate(items, 1):
                whole = isinstance(item, dict) and "name" in item
                if not whole or not isinstance(item.get(one) or {}, dict):
                    return f"item {number} of {part} in {path} is not whole; expected name and {one}"
                named[part].setdefault(str(item["name"]), item.get(one) or {})
    if chosen and str(chosen) not in named["contexts"]:
        return f"there is no context {chosen}"
    for part, one in (("clusters", "cluster"), ("users", "user")):
        wanted = named["contexts"].get(str(chosen), {}).get(one)
        if wanted and str(wanted) not in named[part]:
            return f"the context {chosen} names the {one} {wanted}, and there is none of that name"
    return ""


def unfit_proxy(url: str | None) -> str:
    """Why a cluster's `proxy-url` is no proxy for us, "" where it is: others would be sent plain HTTP."""
    scheme, _, rest = (url or "http").partition("://")
    if scheme in ("http", "https"):
        return ""
    return (
        f"its proxy-url is {scheme}://{rest.rpartition('@')[2]}, and only HTTP proxies can be used: name "
        "one, or forward a port to the API server (ssh -L) and name that as the server"
    )


def _kind(value: Any) -> str:
    """What a value is, and no text itself: a file that is no kubeconfig may hold a token."""
    return "text" if isinstance(value, str) else describe(value)
