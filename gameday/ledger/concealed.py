"""Records without the secrets of an experiment: each is replaced by the name of its variable.

A record lies on a disk and in the cluster. Whoever restores from one gives the secrets it needs in the
environment, under names that are for nothing else: a record can't ask for what was not meant for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gameday.masking import PLAIN, forms, keep_secret, kept

PREFIX = "GAMEDAY_SECRET_"  # of the environment variables that restore a record
# Characters of the private use area (Unicode); an opening one that is in the data already is doubled.
_OPEN, _CLOSE = "\ue000", "\ue001"
_CONCEALED = re.compile(f"{_OPEN}(?:{_OPEN}|([sn]):([^{_CLOSE}]*){_CLOSE})")


class MissingSecret(Exception):
    """A record needs a secret that is not there; the text says which, and how to give it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it needs the secret variable {name}: set ${variable(name)}, and recover again")


def variable(name: str) -> str:
    """The environment variable for a secret variable of an experiment."""
    return PREFIX + name.upper()


def conceal(data: Any) -> Any:
    """A copy of plain data in which each secret, also encoded, is replaced by the name of its variable."""
    names = kept()
    pattern, places = _places(tuple(names.items()))

    def hide(item: Any) -> Any:
        if isinstance(item, str):
            return pattern.sub(lambda m: places.get(m[0], _OPEN * 2), item)
        if isinstance(item, list | tuple):
            return [hide(each) for each in item]
        if isinstance(item, Mapping):
            return {hide(k): hide(v) for k, v in item.items()}
        number = isinstance(item, int | float) and not isinstance(item, bool)
        found = names.get(str(item)) if number else None
        return f"{_OPEN}n:{found}{_CLOSE}" if found else item

    return hide(data)


@lru_cache(maxsize=1)  # a run keeps its secrets before it makes its first record
def _places(secrets: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Each form of each secret, and the text in its place; the encoding of a value as it is has no name.

    The longest form comes first, in one pass: what stands in place of a secret is never looked at again,
    though the name of a variable may hold the value of another one.
    """
    places: dict[str, str] = {}
    for value, name in secrets:
        for encoding, form in forms(value).items():
            coded = "" if encoding == PLAIN else f":{encoding}"
            places.setdefault(form, f"{_OPEN}s:{name}{coded}{_CLOSE}")
    longest_first = sorted((*places, _OPEN), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), places


def reveal(data: Any) -> Any:
    """The data with its secrets in place again, from the environment. Raises MissingSecret."""
    if isinstance(data, str):
        whole = _CONCEALED.fullmatch(data)
        if whole and whole[1] == "n":
            return json.loads(_given(whole[2]))
        return _CONCEALED.sub(lambda m: _form(m[2]) if m[1] else _OPEN, data)
    if isinstance(data, list):
        return [reveal(item) for item in data]
    return {reveal(k): reveal(v) for k, v in data.items()} if isinstance(data, Mapping) else data


def _form(place: str) -> str:
    """A secret as it was encoded. Raises KeyError for an encoding that another version knew."""
    name, _, encoding = place.partition(":")
    return forms(_given(name))[encoding or PLAIN]


def _given(name: str) -> str:
    value = os.environ.get(variable(name))
    if not value:
        raise MissingSecret(name)
    keep_secret(name, value)
    return value
