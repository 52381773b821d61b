"""A fault and a probe from another package, installed as pip would: the file's rules need no others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gameday.experiment import registry
from tests.support.packages import package

MODULE = '''
from __future__ import annotations

from pydantic import Field

from gameday.extend import Fault, NodePick, Probe, PromQL, Spec


class Break(Fault[Spec]):
    """Break nodes in acme's own way."""

    class Spec(Spec):
        nodes: NodePick = Field(description="The nodes to break.")
        force: bool = Field(False, description="Break even what resists.")


class Query(Probe[Spec]):
    """A number out of acme's store."""

    class Spec(Spec):
        query: PromQL = Field(description="What to ask.")
        options: dict[str, int] = Field({}, description="Options of the store.")

        @classmethod
        def shorthand(cls) -> str:
            return "query"


class NoSpec:
    """Has no Spec."""
'''
ENTRY_POINTS = """
[gameday.faults]
acmeBreak = acme_gameday:Break
acmeBroken = acme_missing:Break
acmeNoSpec = acme_gameday:NoSpec
repeat = acme_gameday:Break

[gameday.probes]
acmeQuery = acme_gameday:Query
"""


@pytest.fixture(scope="package", autouse=True)
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder on sys.path that holds the package."""
    folder = tmp_path_factory.mktemp("site-packages")
    package(folder, "acme_gameday", MODULE, ENTRY_POINTS)
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    registry.forget()
    yield folder
    sys.path.remove(str(folder))
    registry.forget()


@pytest.fixture
def library_only(acme: Path) -> Iterator[None]:
    """Only what this project brings itself."""
    sys.path.remove(str(acme))
    registry.forget()
    yield
    sys.path.append(str(acme))
    registry.forget()


GOOD = """\
apiVersion: gameday.dev/v1alpha1
kind: Experiment
metadata:
  name: two-nodes
spec:
  title: Two nodes may break
  target:
    context: staging-.*
  blastRadius: {nodes: 2, pods: 10%}
  variables: {latency: 500ms, count: 2}
  steadyState:
    - name: p99
      acmeQuery: p99{job="inference"}
      is: < {{ latency }}
  method:
    - acmeBreak:
        nodes: {selector: gpu=true, pick: "{{ count }}"}
      for: 1m
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment: a good one, with some of its text replaced."""

    def write(*changes: tuple[str, str], text: str = GOOD, name: str = "experiment.yaml") -> Path:
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
