"""The pages for contributors show what is there: the package that the tests install, and the rooms."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.support.platforms import ROOT

pytestmark = pytest.mark.fast
PAGE = (ROOT / "docs/writing-a-fault.md").read_text()
PACKAGE = ROOT / "tests/outside_package"


def blocks(language: str) -> list[str]:
    """The code of one language on the page, in its order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_code_of_the_page_is_the_package() -> None:
    assert "\n\n".join(blocks("python")) == (PACKAGE / "acme_gameday.py").read_text()
    assert blocks("toml") == [(PACKAGE / "pyproject.toml").read_text()]


def test_the_page_on_architecture_names_what_is_there() -> None:
    """Every path, and the layers as they are checked."""
    page = (ROOT / "docs/architecture.md").read_text()
    paths = re.findall(r"`((?:gameday|tests|experiments|docs|reports)/[\w./-]*)`", page)
    assert len(paths) > 40
    assert [p for p in paths if "acme" not in p and not (ROOT / p).exists()] == []
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    named = [
        re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE)
    ]
    assert named == [[room.strip().removeprefix("gameday.") for room in layer.split("|")] for layer in layers]
