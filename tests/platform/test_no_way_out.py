"""No text of an experiment leaves its place: every field of every fault and probe, found in their models.

A hostile text in any of them is refused when the file is loaded or planned, or every request that leaves is
about an object that was named: the server here takes paths apart as an API server does.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
import types
import typing
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gameday.experiment import registry
from gameday.experiment.model import ExperimentSpec, Spec
from gameday.experiment.selector import Selector
from gameday.extend import FaultError, PlanError
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.prometheus import Prometheus
from gameday.platform.slurm.client import Slurm
from gameday.platform.slurm.transport import Via
from gameday.platform.world import World
from tests.platform.test_wire import kubeconfig
from tests.support import echo
from tests.support.raw import Asked, answer, raw_server

pytestmark = pytest.mark.fast
TARGET = ("training", "inference", "platform", "argocd")
Place = tuple[str, str, int, tuple[Any, ...]]  # group, key, number of a document, way to a text in it
Leaf = tuple[str, ...]  # the keys that lead to a text: of lists `[]`, of a mapping's own keys `{}`

# What the classes' own examples leave out. Every text field of every model must stand in one of them.
NODES = {"names": ["gpu-0"]}
FAULTS: dict[str, list[dict[str, Any]]] = {
    "argocd": [
        {"rollback": {"application": "web", "namespace": "argocd", "to": "abc"}},
        {
            "drift": {
                "resource": "deployment/web",
                "namespace": "training",
                "path": "spec.replicas",
                "value": 1,
            }
        },
    ],
    "chaosMesh": [
        {
            "kind": "NetworkChaos",
            "spec": {
                "mode": "all",
                "selector": {
                    "pods": {"training": ["web-0"]},
                    "nodes": ["gpu-0"],
                    "labelSelectors": {"app": "a"},
                    "fieldSelectors": {"spec.nodeName": "gpu-0"},
                    "nodeSelectors": {"pool": "a"},
                    "namespaces": ["training"],
                },
            },
            "namespace": "training",
            "name": "chaos",
        },
        {"manifest": "none.yaml"},
    ],
    "cordon": [{"nodes": {**NODES, "pick": "all"}}],
    "drain": [{"nodes": {**NODES, "pick": "all"}}],
    "gpu": [
        {"nodes": {**NODES, "pick": "all"}, "mig": {"config": "all-1g.10gb"}},
        {"nodes": {"selector": "pool=a"}, "throttle": {"powerLimit": "50%"}},
        {
            "nodes": NODES,
            "deviceTaint": {
                "driver": "gpu.example.com",
                "devices": ["gpu-0"],
                "key": "a/b",
                "value": "c",
                "effect": "NoExecute",
            },
        },
    ],
    "istio": [
        {"virtualService": "web", "namespace": "training", "routes": ["main"], "abort": {"httpStatus": 503}}
    ],
    "machine": [{"nodes": {**NODES, "pick": "all"}}],
    "nic": [
        {"nodes": {**NODES, "pick": "all"}, "interface": "ens1f0", "rate": "1mbit", "pick": "all"},
        {
            "nodes": {"selector": "pool=a"},
            "pciAddress": "0000:1a:00.0",
            "delay": "1ms",
            "loss": "1%",
            "corrupt": "1%",
            "duplicate": "1%",
            "reorder": "1%",
        },
        {"nodes": NODES, "resource": "openshift.io/mlnx_rdma", "state": "down"},
        {
            "pod": {"name": "web-0", "namespace": "training", "network": "rdma", "pick": "all"},
            "state": "down",
        },
        {"pod": {"selector": "app=a", "namespace": "training"}, "state": "down"},
    ],
    "nodeShutdown": [
        {"nodes": {**NODES, "pick": "all"}, "unit": "k3s-agent"},
        {"nodes": {"selector": "pool=a"}},
    ],
    "podKill": [{"selector": "app=a", "namespace": "training", "pick": "50%"}],
    "podResize": [
        {
            "selector": "app=a",
            "namespace": "training",
            "pick": "all",
            "container": "main",
            "cpu": "50%",
            "memory": "1Gi",
        }
    ],
    "quota": [{"name": "compute", "namespace": "training", "hard": {"requests.nvidia.com/gpu": "1"}}],
    "rollout": [{"name": "web", "namespace": "training", "action": "pause"}],
    "scale": [{"workload": "deployment/web", "namespace": "training", "replicas": 0}],
    "slurm": [
        *(
            {way: what}
            for way in ("drain", "down", "resume")
            for what in ({"names": ["gpu-0"], "pick": "all"}, {"partition": "a"}, {"job": "train"})
        ),
        {"requeue": "train", "reason": "game day"},
        {"holdPartition": {"name": "a"}},
    ],
    "taint": [
        {"nodes": {**NODES, "pick": "all"}, "key": "a/b", "value": "c", "effect": "NoExecute"},
        {"nodes": {"selector": "pool=a"}, "key": "a", "effect": "NoExecute"},
    ],
    "vf": [
        {
            "nodes": {**NODES, "pick": "all"},
            "interface": "ens1f0",
            "number": 1,
            "maxTxRate": "1mbit",
            "pick": "all",
        },
        {"nodes": {"selector": "pool=a"}, "pciAddress": "0000:1a:00.0", "state": "disable"},
        {"nodes": NODES, "resource": "openshift.io/mlnx_rdma", "state": "disable"},
        {
            "pod": {"name": "web-0", "namespace": "training", "network": "rdma", "pick": "all"},
            "state": "disable",
        },
        {"pod": {"selector": "app=a", "namespace": "training"}, "state": "disable"},
    ],
}
PROBES: dict[str, list[dict[str, Any]]] = {
    "argocd": [{"application": "web", "namespace": "argocd"}, {"applicationSet": "web", "children": True}],
    "gpu": [
        {"condition": "GpuHung", "nodes": "pool=a"},
        {"gpud": "states", "component": "nvlink", "nodes": "pool=a"},
        {"count": "requested", "namespaces": ["training"]},
    ],
    "hardwareAgrees": [{"nodes": {**NODES, "pick": "all"}, "namespaces": ["training"]}],
    "http": [
        {
            "url": "http://127.0.0.1:1/",
            "headers": {"X-A": "b"},
            "body": "c",
            "measure": "json",
            "jsonPath": "{.a}",
        },
        {"url": "http://127.0.0.1:1/", "body": {"a": "b"}},
    ],
    "kubernetes": [
        {"resource": "deployment/web", "namespace": "training", "condition": "Available"},
        {
            "resource": "certificates.certs.example.com",
            "namespace": "training",
            "selector": "a=b",
            "jsonPath": "{.spec.replicas}",
        },
    ],
    "nic": [{"nodes": {**NODES, "pick": "all"}, "interface": "ens.*", "read": "state"}],
    "slurm": [
        {"nodes": {"names": ["gpu-0"], "partition": "a", "state": "idle"}},
        {"jobs": {"state": "PENDING", "reason": "Resources", "partition": "a"}},
        {"job": "train"},
        {"restarts": "train"},
        {"partition": "a"},
    ],
    "slurmKubernetesAgree": [{"partition": "a"}],
}
CODE = {"chaostoolkit"}  # runs whatever it is given: not a matter of names
ELSEWHERE = {"http"}  # asks whatever URL it is given
QUERIES = [["prometheus", "query"]]  # the user's own PromQL

HOSTILE = (
    "../../inference/deployments/inference",
    "..",
    ".",
    "",
    "/",
    "a/b",
    "a/../b",
    "%2e%2e%2fb",
    "a%2Fb",
    "a?b=c",
    "a#b",
    "a b",
    " ",
    "a\nb",
    "a\r\nX-Evil: 1",
    "a\x00b",
    "-h",
    "--all",
    "*",
    "a,b",
    "a=b",
    "gpu-[0-9]",
    "ALL",
    "kube-system",
    'a"} or up{a="',
    "a\\",
    "${x}",
    "$(id)",
    "`id`",
    "{{ x }}",
    "deployment/../../inference/deployments/inference",
    "deployment/a/b",
    "deployment/%2e%2e",
    "deployment/..",
    "pods.../x/y",
    "certificates.../../x",
    "é",
    "\u202e",
    "😀",
    "a" * 300,
    "A",
    "a..b",
    "a;b",
    "@evil.example/",
)


# -- every field ---------------------------------------------------------------------------------------------


def text_fields(model: type[BaseModel], path: Leaf = ()) -> Iterator[Leaf]:
    """Where a model takes texts that are not one of a few words."""
    for name, field in model.model_fields.items():
        yield from _texts(field.annotation, (*path, field.alias or name))


def _texts(annotation: Any, path: Leaf) -> Iterator[Leaf]:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is str:
        yield path
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation.__name__ not in path:  # a step holds steps
            yield from text_fields(annotation, path)
    elif origin is typing.Annotated:
        yield from _texts(inside[0], path)
    elif origin is dict:
        yield from _texts(inside[0], (*path, "{}"))
        yield from _texts(inside[1], (*path, "[]"))
    elif origin in (list, tuple):
        yield from _texts(inside[0], (*path, "[]"))
    elif origin in (typing.Union, types.UnionType):
        for each in inside:
            yield from _texts(each, path)


def texts_in(value: Any, path: Leaf = ()) -> Iterator[tuple[Leaf, tuple[Any, ...]]]:
    """The texts of a document, each as its field and as the way to it."""
    yield from _texts_in(value, path, ())


def _texts_in(value: Any, field: Leaf, way: tuple[Any, ...]) -> Iterator[tuple[Leaf, tuple[Any, ...]]]:
    if isinstance(value, str):
        yield field, way
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _texts_in(each, (*field, "[]"), (*way, number))
    elif isinstance(value, dict):
        for key, each in value.items():
            yield (*field, "{}"), (*way, {"key": key})
            yield from _texts_in(each, (*field, key), (*way, key))
            yield from _texts_in(each, (*field, "[]"), (*way, key))


def with_text(document: Any, way: tuple[Any, ...], text: str) -> Any:
    """The document with another text there."""
    made = copy.deepcopy(document)
    place = made
    for key in way[:-1]:
        place = place[key]
    if isinstance(way[-1], dict):
        place[text] = place.pop(way[-1]["key"])
    else:
        place[way[-1]] = text
    return made


@cache
def documents(group: str) -> dict[str, list[Any]]:
    more = FAULTS if group == registry.FAULTS else PROBES
    found = {}
    for key in registry.names(group):
        if key not in CODE:
            first = yaml.safe_load(registry.load(group, key).example)[key]
            spec = spec_of(group, key)
            short = spec.shorthand()
            found[key] = [{short: first} if isinstance(first, str) else first, *more.get(key, [])]
    return found


def spec_of(group: str, key: str) -> type[Spec]:
    spec: type[Spec] = registry.load(group, key).Spec
    return spec


GROUPS = (registry.FAULTS, registry.PROBES)


@pytest.mark.parametrize("group", GROUPS)
def test_every_text_field_is_tried(group: str) -> None:
    """A new field fails here until a document of it stands above."""
    for key, tried in documents(group).items():
        wanted = set(text_fields(spec_of(group, key)))
        there = {field for document in tried for field, _ in texts_in(document)}
        assert wanted <= there, (key, wanted - there)
        for document in tried:
            spec_of(group, key).model_validate(document)


# Fields that are only shown, or that are files, code or queries of the user's own.
SHOWN = {"title", "owner", "runbook", "name", "slack", "url", "user", "image", "apiServer", "context"}
SHOWN |= {"alert", "observe", "env", "file", "caFile", "certFile", "keyFile", "[]", "{}"}


def test_no_other_field_of_the_experiment_goes_into_a_path() -> None:
    """What `target` and the rest name is checked like the faults' fields; a new one must be looked at."""
    names = {".".join(path) for path in text_fields(ExperimentSpec)}
    for path in sorted(n for n in names if n.rpartition(".")[2] not in SHOWN):
        for text in ("../x", "a b", "..", "%2f"):
            assert any(_at(loc, path) for loc in _refused(path.split("."), text)), (path, text)


def _refused(path: list[str], text: str) -> list[tuple[str, ...]]:
    """Where the model complains of an experiment with that text there."""
    document: dict[str, Any] = {
        "title": "t",
        "target": {},
        "blastRadius": {},
        "steadyState": [],
        "method": [],
    }
    place: Any = document
    for key, following in zip(path, [*path[1:], ""], strict=True):
        child: Any = text if not following else [] if following == "[]" else {}
        if isinstance(place, list):
            place.append(child)
            place = child
        elif key == "{}":
            place[text] = "x"
        else:
            place = place.setdefault(key, child)
    with pytest.raises(ValidationError) as caught:
        ExperimentSpec.model_validate(document)
    refused = ("value_error", "string_pattern_mismatch")
    return [tuple(str(part) for part in e["loc"]) for e in caught.value.errors() if e["type"] in refused]


def _at(loc: tuple[str, ...], path: str) -> bool:
    wanted = [part for part in path.split(".") if part not in ("[]", "{}")]
    return [part for part in loc if part in wanted] == wanted


# -- what leaves ---------------------------------------------------------------------------------------------

QUERY = {
    "limit",
    "labelSelector",
    "fieldSelector",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
}
QUERY |= {"container", "tailLines", "limitBytes", "stdout", "stderr", "command"}
FIELDS = {
    "metadata.name",
    "spec.nodeName",
    "status.phase",
    "type",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.uid",
}


def check_kubernetes(asked: Asked) -> None:
    """The request is about one object or one collection, by names that are names."""
    raw = asked.path.split("/")[1:]
    words = [unquote(word) for word in raw]
    assert [quote(word, safe="") for word in words] == raw, asked.target
    for word in words:
        assert word not in ("", ".", ".."), asked.target
        assert not set(word) & set("/%\\"), asked.target
        assert word.isprintable(), asked.target
    version, below = echo.parts(asked.target)
    if version in echo.KINDS and below:
        if below[0] == "namespaces" and len(below) > 2:
            below = below[2:]
        assert below[0] in echo.KINDS[version], asked.target
        assert len(below) <= 3, asked.target
    query = parse_qsl(asked.query, keep_blank_values=True, strict_parsing=bool(asked.query))
    assert {key for key, _ in query} <= QUERY, asked.target
    for key, value in query:
        if key == "labelSelector":
            assert Selector.parse(value).requirements, asked.target
        if key == "fieldSelector":
            for part in re.split(r"(?<!\\),", value):
                name, _, _ = part.partition("=")
                assert name in FIELDS, asked.target


def check_prometheus(asked: Asked) -> None:
    form = dict(parse_qsl(asked.body.decode(), strict_parsing=bool(asked.body)))
    outside = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', form.get("query", ""))
    assert re.fullmatch(r"[\w\s{}()\[\],=~!+*/.:<>|\"-]*", outside, re.ASCII), form
    assert outside.count('""') * 2 == outside.count('"'), form


def check_slurm(asked: Asked) -> None:
    assert asked.method == "GET", asked  # planning changes nothing
    assert asked.path in (
        "/openapi/v3",
        *(f"/slurm/v0.0.45/{what}" for what in ("nodes", "jobs", "partitions")),
    ), asked


def _slurm(what: str) -> dict[str, Any]:
    return {f"/slurm/v0.0.45/{path}": {"get": {}, "post": {}} for path in what.split()}


SLURM: dict[str, dict[str, Any]] = {
    "/openapi/v3": {"paths": _slurm("nodes jobs partitions node/{node_name} job/{job_id}/requeue")},
    "/slurm/v0.0.45/nodes": {"nodes": [{"name": "gpu-0", "state": ["IDLE"], "partitions": ["a"]}]},
    "/slurm/v0.0.45/jobs": {
        "jobs": [{"job_id": 1, "name": "train", "job_state": ["RUNNING"], "nodes": "gpu-0"}]
    },
    "/slurm/v0.0.45/partitions": {
        "partitions": [{"name": "a", "partition": {"state": ["UP"]}, "nodes": {"configured": "gpu-0"}}]
    },
}
VECTOR = {
    "status": "success",
    "data": {
        "resultType": "vector",
        "result": [{"metric": {"node": "gpu-0", "device": "ens1"}, "value": [1, "1"]}],
    },
}


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[tuple[World, dict[str, list[Asked]]]]:
    """A world whose every system is a server here, and what they are asked."""
    async with (
        raw_server(echo.respond) as api,
        raw_server(lambda _: answer(200, VECTOR)) as metrics,
        raw_server(lambda a: answer(200, SLURM.get(a.path, {}))) as slurm,
        await Kube.connect(kubeconfig(folder, api.url)) as kube,
        Prometheus(metrics.url) as prometheus,
    ):
        kube.patience = 0.0
        client = Slurm.of(Via(url=slurm.url, user="x"), kube)
        world = World(kube, prometheus, client, namespaces=TARGET, node_selector="", folder=folder)
        yield world, {"kubernetes": api.asked, "prometheus": metrics.asked, "slurm": slurm.asked}


async def use(group: str, key: str, spec: Spec, world: World) -> None:
    """Plan the fault, or ask the probe."""
    made = registry.load(group, key)()
    with contextlib.suppress(PlanError, FaultError, PlatformError):
        async with asyncio.timeout(20):
            if group == registry.FAULTS:
                await made.of(spec).plan(spec, world)
            else:
                await made.measure(spec, world)


CHECKS = {"kubernetes": check_kubernetes, "prometheus": check_prometheus, "slurm": check_slurm}


@cache
def places() -> list[Place]:
    """Each text of each document."""
    found = []
    for group in GROUPS:
        for key, tried in documents(group).items():
            for number, document in enumerate(tried if key not in ELSEWHERE else ()):
                ways = {json.dumps(w): w for _, w in texts_in(document) if [key, *w] not in QUERIES}
                found += [(group, key, number, way) for way in ways.values()]
    return found


def at(place: Place, text: str) -> Spec | None:
    """The model with that text in that place; None where it is refused."""
    group, key, number, way = place
    with contextlib.suppress(ValidationError):
        return spec_of(group, key).model_validate(with_text(documents(group)[key][number], way, text))
    return None


def check_all(tried: Iterable[tuple[str, str, Spec]], folder: Path) -> list[bool]:
    """Use each, and check all that left; whether anything did."""

    async def run() -> list[bool]:
        said = []
        async with surroundings(folder) as (world, asked):
            for group, key, spec in tried:
                await use(group, key, spec, world)
                said.append(any(asked.values()))
                for system, requests in asked.items():
                    for request in requests:
                        CHECKS[system](request)
                    requests.clear()
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JWT", "a.b.c")
        return asyncio.run(run())


@pytest.mark.parametrize("group", GROUPS)
def test_the_documents_themselves_are_planned(group: str, tmp_path: Path) -> None:
    """Or the tests below would prove nothing: each asks somebody something."""
    tried = [(key, d) for key, ds in documents(group).items() for d in ds if key not in ELSEWHERE]
    said = check_all(((group, k, spec_of(group, k).model_validate(d)) for k, d in tried), tmp_path)
    silent = [document for (_, document), asked in zip(tried, said, strict=True) if not asked]
    assert silent in ([], [{"manifest": "none.yaml"}])


def test_no_listed_text_leaves_its_place(tmp_path: Path) -> None:
    pairs = ((place, at(place, text)) for place in places() for text in HOSTILE)
    taken = [(place[0], place[1], spec) for place, spec in pairs if spec is not None]
    assert len(check_all(taken, tmp_path)) > 100  # free texts take most of them


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_no_text_leaves_its_place(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(st.sampled_from(places()))
    pieces = st.sampled_from([*HOSTILE, "a", "deployment/", "gpu-0", "training"]) | st.text(max_size=5)
    spec = at(place, "".join(data.draw(st.lists(pieces, min_size=1, max_size=4))))
    assume(spec is not None)
    assert spec is not None
    check_all([(place[0], place[1], spec)], tmp_path)
