"""Secret variables: `token: {secretFrom: {env: NAME}}`. The file says where it is, not what."""

from __future__ import annotations

import os
import re
from pathlib import Path as FilePath
from typing import Any

from gameday.experiment.problems import Path, did_you_mean
from gameday.experiment.text import describe
from gameday.experiment.tree import Tree
from gameday.masking import MASK, TooShort, keep_secret

FORM = "secretFrom: {env: NAME}, or secretFrom: {file: PATH}"
LARGEST = 64 * 1024  # bytes
_PLACES = ("env", "file")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_secret(tree: Tree, path: Path, declared: dict[str, Any], *, needed: bool) -> str:
    """The value, masked from now on. What is wrong goes to the tree; where not `needed`, so *** is enough."""
    source = declared.get("secretFrom")
    for key in declared.keys() - {"secretFrom"}:
        hint = did_you_mean(key, ["secretFrom"])
        tree.report((*path, key), f"is nothing that a secret has; expected {FORM}", hint, at_key=True)
    if not isinstance(source, dict) or len(source) != 1 or not source.keys() <= set(_PLACES):
        if "secretFrom" in declared or not declared:  # else the key was told already
            where = (*path, "secretFrom") if "secretFrom" in declared else path
            tree.report(where, f"expected {FORM}, found {describe(source)}")
        return MASK
    ((place, name),) = source.items()
    here = (*path, "secretFrom", place)
    if not isinstance(name, str) or not name or (place == "env" and not _ENV_NAME.fullmatch(name)):
        wanted = "the name of an environment variable" if place == "env" else "the path of a file"
        tree.report(here, f"expected {wanted}, found {describe(name)}")
        return MASK
    value, wrong = _from_environment(name) if place == "env" else _from_file(name, tree)
    if value is None:
        if needed:
            tree.report(here, wrong)
        return MASK
    try:
        if not value:
            raise TooShort
        keep_secret(str(path[-1]), value)
    except TooShort as short:
        tree.report(here, str(short))
        return MASK
    return value


def _from_environment(name: str) -> tuple[str | None, str]:
    return os.environ.get(name), f"the environment variable {name} is not set: export it first"


def _from_file(name: str, tree: Tree) -> tuple[str | None, str]:
    """The file's text without the line end that editors add; relative paths start at the experiment."""
    path = FilePath(tree.file).parent / name
    try:
        if not path.is_file():
            return None, f"there is no file {path}"
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        return None, f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}"
    if len(content) > LARGEST:
        return None, f"{path} is larger than {LARGEST // 1024} KiB"
    return text.rstrip("\r\n"), ""
