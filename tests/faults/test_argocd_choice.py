"""What a rollback and a drift mean, before anything is asked: the entry of the history, the field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gameday.extend import PlanError
from gameday.faults.argocd import ArgoCDSpec
from gameday.faults.argocd_drift import field, is_counted
from gameday.faults.argocd_rollback import choose
from gameday.ledger.argocd import Rollback
from gameday.platform.objects import Object, Ref

pytestmark = pytest.mark.fast
REF = Ref("argoproj.io/v1alpha1", "Application", "web", "argocd")
SOURCE = {"repoURL": "https://git.example.com/web.git"}
A, B = "a" * 40, "b" * 40


def entry(number: int, revision: str, **more: Any) -> Object:
    return {"id": number, "revision": revision, "source": SOURCE, **more}


@pytest.mark.parametrize(
    ("to", "history", "chosen"),
    [
        ("previous", [entry(1, A), entry(2, B)], 1),
        ("previous", [entry(1, A), entry(2, B), entry(3, B)], 1),  # deployed again: that is no way back
        ("previous", [entry(1, A), entry(2, B), entry(3, B, source={"repoURL": "other"})], 2),
        (1, [entry(1, A), entry(2, B)], 1),
        ("1", [entry(1, A), entry(2, B)], 1),
        ("aaaaaaa", [entry(1, A), entry(2, A), entry(3, B)], 2),
        ("previous", [{"id": 4, "revisions": [A, B], "sources": [SOURCE, SOURCE]}, entry(5, A)], 4),
    ],
)
def test_an_entry_of_the_history_is_chosen(to: Any, history: list[Object], chosen: int) -> None:
    assert choose(to, history, REF)["id"] == chosen


@pytest.mark.parametrize(
    ("to", "history", "said"),
    [
        ("previous", [], "has no history"),
        ("previous", [entry(1, A)], "has no deployment before this one that differs"),
        (3, [entry(1, A), entry(2, B)], "there are: 2 (bbbbbbb"),
        ("aa", [entry(1, A), entry(2, B)], "has no deployment aa"),  # too short to be meant
        (2, [entry(1, A), entry(2, B)], "nothing would change"),
        (1, [{"id": 1, "revision": A}, entry(2, B)], "has no source"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(to: Any, history: list[Object], said: str) -> None:
    with pytest.raises(PlanError, match=said.replace("(", r"\(")):
        choose(to, history, REF)


POD = {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}


@pytest.mark.parametrize(
    ("path", "obj", "value"),
    [
        ("spec.replicas", {"spec": {"replicas": 3}}, 3),
        ("{.spec.replicas}", {"spec": {"replicas": 3}}, 3),
        ("spec.containers[name=b].image", POD, "y"),
        ("/metadata/labels/example.com~1tier", {"metadata": {"labels": {"example.com/tier": "1"}}}, "1"),
        ("data.missing", {"data": {}}, None),
    ],
)
def test_a_field_is_found_by_its_path(path: str, obj: Object, value: Any) -> None:
    assert field(path, None).read(obj) == value


@pytest.mark.parametrize("path", ["spec..x", "spec[0]", "a[b=c].d[e=f]", "spec.containers[]"])
def test_a_path_that_means_nothing_is_refused(path: str) -> None:
    with pytest.raises(PlanError, match="is not a path to a field"):
        field(path, None)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {
            "rollback": {"application": "web"},
            "drift": {"resource": "configmap/y", "namespace": "z", "path": "p", "value": 1},
        },
    ],
    ids=["neither", "both"],
)
def test_one_of_the_two_is_wanted(spec: Any) -> None:
    with pytest.raises(ValidationError, match="either `rollback` or `drift`"):
        ArgoCDSpec.model_validate(spec)


def test_a_rollback_survives_its_record() -> None:
    operation = Rollback(
        REF, "run-1", entry(1, A), entry(2, B), prune_back=True, options=("CreateNamespace=true",)
    )
    assert Rollback.from_data(operation.to_data()) == operation


@pytest.mark.parametrize(
    ("api_version", "kind", "path", "value", "counted"),
    [
        ("apps/v1", "Deployment", "metadata.annotations.a", "b", True),
        ("v1", "Pod", "metadata.labels.app", None, False),  # its controller would make another one
        ("keda.sh/v1alpha1", "ScaledObject", "metadata.annotations.a", "0", False),
        ("apps/v1", "Deployment", "spec.strategy.type", "Recreate", True),
        ("argoproj.io/v1alpha1", "Rollout", "spec.strategy.canary.steps", [], False),
        ("apps/v1", "Deployment", "spec.paused", True, True),
        ("v1", "Service", "spec.selector", {}, False),
    ],
)
def test_what_follows_from_a_drift_is_known_of_few_fields(
    api_version: str, kind: str, path: str, value: Any, counted: bool
) -> None:
    assert is_counted({"apiVersion": api_version, "kind": kind}, field(path, value)) is counted
