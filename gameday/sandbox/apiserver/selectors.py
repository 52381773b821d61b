"""Label and field selectors as predicates over stored objects, in the syntax of the API's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import bad_request

Json = dict[str, Any]
Predicate = Callable[[Json], bool]
Requirement = tuple[str, str, frozenset[str]]  # key, operator, values

_LABEL = re.compile(
    r"""\s*(?:
        (?P<set>[\w./-]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)
      | !\s*(?P<absent>[\w./-]+)
      | (?P<key>[\w./-]+)\s*(?:(?P<eq>==|=|!=|>|<)\s*(?P<value>[\w.-]*))?
    )\s*(?:,|$)""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?[0-9]+")
_OF_LABELS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_OF_NODES = _OF_LABELS | {"Gt": ">", "Lt": "<"}
_FIELD = re.compile(r"^\s*([\w.]+)\s*(==|=|!=)\s*(.*?)\s*$")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "certificatesigningrequests": ("spec.signerName",),
    "replicasets": ("status.replicas",),
    "replicationcontrollers": ("status.replicas",),
    "jobs": ("status.successful",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}
_REGARDING = {"regarding." + f.split(".")[1]: f for f in FIELDS["events"] if "." in f}


def parse_labels(text: str) -> list[Requirement]:
    """The requirements of a labelSelector; all must hold."""
    found: list[Requirement] = []
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if not match or match.end() == position:
            raise bad_request(f"unable to parse requirement: found '{text[position:]}'")
        position = match.end()
        if match["set"]:
            values = frozenset(v.strip() for v in match["values"].split(","))
            found.append((match["set"], match["op"], values))
        elif match["absent"]:
            found.append((match["absent"], "!", frozenset()))
        elif match["eq"]:
            if match["eq"] in (">", "<") and not _NUMBER.fullmatch(match["value"]):
                raise bad_request("for 'Gt', 'Lt' operators, the value must be an integer")
            operator = {"!=": "notin", ">": ">", "<": "<"}.get(match["eq"], "in")
            found.append((match["key"], operator, frozenset([match["value"]])))
        else:
            found.append((match["key"], "exists", frozenset()))
    return found


def from_label_selector(selector: Json | None) -> list[Requirement] | None:
    """The requirements of a LabelSelector object; None when it selects nothing (it is absent)."""
    if selector is None:
        return None
    return [
        *parse_values(selector.get("matchLabels")),
        *parse_expressions(selector.get("matchExpressions")),
    ]


def parse_values(wanted: Mapping[str, str] | None) -> list[Requirement]:
    """The requirements of labels that must have these values."""
    return [(key, "in", frozenset([value])) for key, value in (wanted or {}).items()]


def parse_expressions(expressions: Iterable[Json] | None, *, of_nodes: bool = False) -> list[Requirement]:
    """The requirements of `matchExpressions`, or of a node's `matchFields`.

    `of_nodes`: as a node selector has them, with Gt and Lt. Raises Refused for any other operator, in the
    words of LabelSelectorAsSelector and NodeSelectorRequirementsAsSelector (k8s.io/apimachinery,
    k8s.io/component-helpers).
    """
    operators, what = (_OF_NODES, "node") if of_nodes else (_OF_LABELS, "label")
    found: list[Requirement] = []
    for each in expressions or ():
        if each["operator"] not in operators:
            raise bad_request(f'"{each["operator"]}" is not a valid {what} selector operator')
        found.append((each["key"], operators[each["operator"]], frozenset(each.get("values") or ())))
    return found


def labels_match(requirements: list[Requirement], labels: Mapping[str, str]) -> bool:
    """Whether all requirements hold. `notin` also holds where the label is absent, as upstream has it."""
    for key, operator, values in requirements:
        if operator == "in":
            if labels.get(key) not in values:
                return False
        elif operator == "notin":
            if key in labels and labels[key] in values:
                return False
        elif operator in (">", "<"):
            if not _compares(labels.get(key), operator, values):
                return False
        elif (key in labels) != (operator == "exists"):
            return False
    return True


def _compares(label: str | None, operator: str, values: frozenset[str]) -> bool:
    (bound,) = values
    if not (label and _NUMBER.fullmatch(label) and _NUMBER.fullmatch(bound)):
        return False  # neither more nor less (labels.Requirement.Matches)
    return int(label) > int(bound) if operator == ">" else int(label) < int(bound)


def selector(resource: Resource, labels: str, fields: str, name: str = "") -> Predicate | None:
    """One predicate for both selectors; None when everything matches."""
    tests: list[Predicate] = []
    if labels:
        requirements = parse_labels(labels)
        tests.append(lambda obj: labels_match(requirements, obj["metadata"].get("labels") or {}))
    if fields:
        tests += [_field_test(resource, term) for term in fields.split(",") if term.strip()]
    if name:
        tests.append(lambda obj: obj["metadata"]["name"] == name)
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda obj: all(test(obj) for test in tests)


def _field_test(resource: Resource, term: str) -> Predicate:
    match = _FIELD.match(term)
    if not match:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    path, operator, wanted = match.groups()
    path = _REGARDING.get(path, path)
    known = (*FIELDS.get(resource.plural, ()), *_selectable(resource), "metadata.name", "metadata.namespace")
    if path not in known:
        raise bad_request(f"field label not supported: {path}")
    steps = path.split(".")
    equal = operator != "!="
    if path == "source":
        return lambda obj: ((obj.get("source") or {}).get("component", "") == wanted) == equal
    return lambda obj: (_text(obj, steps) == wanted) == equal


def _selectable(resource: Resource) -> tuple[str, ...]:
    fields = (resource.custom or {}).get("selectableFields") or ()
    return tuple(f["jsonPath"].lstrip(".") for f in fields)


def _text(obj: Any, steps: list[str]) -> str:
    for step in steps:
        if not isinstance(obj, dict):
            return ""
        obj = obj.get(step)
    if obj is None:
        return "false" if steps[-1] in ("unschedulable", "hostNetwork") else ""
    return str(obj).lower() if isinstance(obj, bool) else str(obj)
