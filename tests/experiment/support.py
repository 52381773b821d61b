"""Short ways to say what a file means, and what it is refused for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.loader import InvalidExperiment, load, loads
from gameday.experiment.model import Experiment

Write = Callable[..., Path]


def problems(path: Path, **options: Any) -> list[str]:
    """What is said about a file that is refused, without its folder."""
    with pytest.raises(InvalidExperiment) as refused:
        load(path, **options)
    assert all(each.line > 0 or each.file != str(path) or not each.key for each in refused.value.problems)
    return [str(each).replace(f"{path.parent}/", "") for each in refused.value.problems]


def only(path: Path, **options: Any) -> str:
    """The one problem of a file."""
    found = problems(path, **options)
    assert len(found) == 1, found
    return found[0]


def meant(document: dict[str, Any]) -> Experiment:
    """The experiment of a document that was rendered before, as a run's folder keeps it."""
    return loads(json.dumps(document), Path("experiment.yaml")).experiment
