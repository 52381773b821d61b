"""What the sandbox puts into a cluster: the YAML files here, and what is better made than written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gameday.platform.objects import Object

HERE = Path(__file__).parent
SELECTORS = [
    *("namespaces", "nodes", "pods", "podPhaseSelectors", "labelSelectors", "annotationSelectors"),
    *("fieldSelectors", "nodeSelectors", "expressionSelectors"),
]
# Kind: its spec's fields besides those that all kinds have. What is inside them is not checked further.
CHAOS: dict[str, str] = {
    "PodChaos": "gracePeriod containerNames",
    "NetworkChaos": "direction target externalTargets device targetDevice delay loss duplicate corrupt "
    "bandwidth rate",
    "StressChaos": "stressors stressngStressors containerNames",
    "IOChaos": "volumePath path methods percent delay errno attr mistake containerNames",
    "TimeChaos": "timeOffset clockIds containerNames",
    "HTTPChaos": "target port path method code request_headers response_headers abort delay replace "
    "patch tls",
    "DNSChaos": "patterns containerNames",
}
ACTIONS: dict[str, list[str]] = {
    "PodChaos": ["pod-kill", "pod-failure", "container-kill"],
    "NetworkChaos": ["netem", "delay", "loss", "duplicate", "corrupt", "partition", "bandwidth"],
    "IOChaos": ["latency", "fault", "attrOverride", "mistake"],
    "DNSChaos": ["error", "random"],
}
MADE = ("WorkflowNode", "PodNetworkChaos")  # by Chaos Mesh itself, beside its experiments
MODES = ["one", "all", "fixed", "fixed-percent", "random-max-percent"]
ANYTHING: Object = {"x-kubernetes-preserve-unknown-fields": True}
_INTEGERS = {"gracePeriod", "port", "percent", "code", "errno"}
_LISTS = {"containerNames", "externalTargets", "methods", "clockIds", "patterns"}


def read(name: str) -> list[Object]:
    """The objects of one of the files."""
    listed: Any = yaml.load((HERE / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader)
    return list(listed["items"])


def chaos_crds() -> list[Object]:
    """Small CRDs for Chaos Mesh's kinds: upstream's names, required fields and enums, none of its prose."""
    crds = [_crd(kind, _chaos_schema(kind), status=False) for kind in CHAOS]
    schedule = _object(
        {
            "schedule": _text(),
            "type": _text(),
            "concurrencyPolicy": _text(["Forbid", "Allow"]) | {"default": "Forbid"},
            "historyLimit": {"type": "integer", "minimum": 1},
            "startingDeadlineSeconds": {"type": "integer", "nullable": True},
            **{field_of(kind): {"type": "object", **ANYTHING} for kind in [*CHAOS, "Workflow"]},
        },
        ["schedule", "type"],
    )
    template = _object({"name": _text(), "templateType": _text()}, ["name", "templateType"]) | ANYTHING
    workflow = _object(
        {"entry": _text(), "templates": {"type": "array", "items": template}}, ["entry", "templates"]
    )
    made = [_crd(kind, {"type": "object", **ANYTHING}, status=True) for kind in MADE]
    return [*crds, _crd("Schedule", schedule, status=False), _crd("Workflow", workflow, status=True), *made]


def field_of(kind: str) -> str:
    """The field in a Schedule or a template that holds the spec of that kind, as networkChaos."""
    return kind[0].lower() + kind[1:] if kind[1].islower() else kind[:-5].lower() + "Chaos"


def plural_of(kind: str) -> str:
    return kind.lower() if kind.endswith("Chaos") else kind.lower() + "s"


def _chaos_schema(kind: str) -> Object:
    names = CHAOS[kind].split()
    fields: Object = {name: dict(ANYTHING) for name in names}
    fields |= {name: {"type": "integer"} for name in names if name in _INTEGERS}
    fields |= {name: {"type": "array", "items": _text()} for name in names if name in _LISTS}
    fields |= {
        "mode": _text(MODES),
        "value": _text(),
        "duration": _text(),
        "remoteCluster": _text(),
        "selector": _object({name: dict(ANYTHING) for name in SELECTORS}, []),
    }
    required = ["mode", "selector"]
    if kind in ACTIONS:
        fields["action"] = _text(ACTIONS[kind])
        required.append("action")
    if kind == "NetworkChaos":
        fields["direction"] = _text(["to", "from", "both"]) | {"default": "to"}
    if kind == "TimeChaos":
        required.append("timeOffset")
    return _object(fields, required)


def _crd(kind: str, spec: Object, *, status: bool) -> Object:
    plural = plural_of(kind)
    schema = _object(
        {"metadata": {"type": "object"}, "spec": spec, "status": {"type": "object", **ANYTHING}}, ["spec"]
    )
    version: Object = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    if status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.chaos-mesh.org"},
        "spec": {
            "group": "chaos-mesh.org",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }


def _object(properties: Object, required: list[str]) -> Object:
    schema: Object = {"type": "object", "properties": properties}
    return schema | ({"required": required} if required else {})


def _text(enum: list[str] | None = None) -> Object:
    return {"type": "string", "enum": enum} if enum else {"type": "string"}
