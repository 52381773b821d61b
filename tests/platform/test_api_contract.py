"""How the API treats writes and reads: the same on the sandbox and on a real kube-apiserver."""

from __future__ import annotations

import json

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from gameday.platform.resources import CONFIG_MAPS, LEASES, NODES, PODS
from tests.platform.arrange import config_map, deployment, pod, put, refusal, unique

DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")


async def test_create_fills_in_what_the_server_owns(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    metadata = created["metadata"]
    assert metadata["uid"]
    assert metadata["resourceVersion"].isdigit()
    assert metadata["creationTimestamp"].endswith("Z")
    assert created["data"] == {"a": "1"}


async def test_generate_name(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace)
    del obj["metadata"]["name"]
    obj["metadata"]["generateName"] = "made-"
    query = {"fieldManager": "gameday"}
    answer = await kube.request("POST", CONFIG_MAPS.path(namespace), query=query, body=obj)
    name = json.loads(answer)["metadata"]["name"]
    assert name.startswith("made-")
    assert len(name) == len("made-") + 5


async def test_create_of_what_exists_conflicts(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace)
    await kube.create(obj)
    error = await refusal(kube.create(obj))
    assert (error.status, error.reason) == (409, "AlreadyExists")
    assert error.message == f'configmaps "{obj["metadata"]["name"]}" already exists'


async def test_create_in_a_missing_namespace(kube: Kube) -> None:
    error = await refusal(kube.create(config_map("no-such-namespace")))
    assert (error.status, error.reason) == (404, "NotFound")
    assert error.message == 'namespaces "no-such-namespace" not found'


async def test_bad_names_and_labels_are_invalid(kube: Kube, namespace: str) -> None:
    error = await refusal(kube.create(config_map(namespace, "Not_A_Name")))
    assert (error.status, error.reason) == (422, "Invalid")
    assert error.details["causes"][0]["field"] == "metadata.name"
    error = await refusal(kube.create(config_map(namespace, labels={"a": "no spaces"})))
    assert error.status == 422
    assert error.details["causes"][0]["field"] == "metadata.labels"


async def test_unknown_fields_of_built_in_kinds(kube: Kube, namespace: str) -> None:
    wrong = deployment(namespace)
    wrong["spec"]["template"]["spec"]["nodNeame"] = "typo"
    error = await refusal(kube.create(wrong))
    assert (error.status, error.reason) == (400, "BadRequest")
    assert error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.template.spec.nodNeame"'
    )
    created = json.loads(await kube.request("POST", DEPLOYMENTS.path(namespace), body=wrong))
    assert "nodNeame" not in created["spec"]["template"]["spec"]
    error = await refusal(kube.create(config_map(namespace) | {"datum": {}}))
    assert 'unknown field "datum"' in error.message
    wrong = config_map(namespace)
    wrong["metadata"]["label"] = {}
    assert 'unknown field "metadata.label"' in (await refusal(kube.create(wrong))).message


async def test_get_of_nothing(kube: Kube, namespace: str) -> None:
    error = await refusal(kube.get(Ref("v1", "ConfigMap", "nothing", namespace)))
    assert (error.status, error.reason) == (404, "NotFound")
    assert error.message == 'configmaps "nothing" not found'
    assert error.details == {"name": "nothing", "kind": "configmaps"}


async def test_an_unknown_kind_is_not_found(kube: Kube) -> None:
    error = await refusal(kube.resource("nobody.example.com/v1", "Thing"))
    assert error.status == 404


# -- the optimistic lock, generations ---------------------------------------------------------------


async def test_put_with_an_old_version_conflicts(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    changed = await put(kube, CONFIG_MAPS, created | {"data": {"a": "2"}})
    assert int(changed["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])
    error = await refusal(put(kube, CONFIG_MAPS, created | {"data": {"a": "3"}}))
    assert (error.status, error.reason) == (409, "Conflict")
    assert error.message == (
        f'Operation cannot be fulfilled on configmaps "{created["metadata"]["name"]}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )


async def test_patch_with_an_old_version_conflicts(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    ref = Ref.of(created)
    await kube.patch(ref, {"data": {"a": "2"}}, "merge")
    version = created["metadata"]["resourceVersion"]
    error = await refusal(
        kube.patch(ref, {"metadata": {"resourceVersion": version}, "data": {"a": "3"}}, "merge")
    )
    assert (error.status, error.reason) == (409, "Conflict")


async def test_put_of_another_objects_uid_conflicts(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace))
    metadata = created["metadata"] | {"uid": "00000000-0000-4000-8000-000000000000"}
    del metadata["resourceVersion"]
    error = await refusal(put(kube, CONFIG_MAPS, created | {"metadata": metadata}))
    assert error.status == 409


async def test_a_change_to_nothing_keeps_the_version(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    patched = await kube.patch(Ref.of(created), {"data": {"a": "1"}}, "merge")
    assert patched["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_generation_counts_changes_of_the_spec(kube: Kube, namespace: str) -> None:
    created = await kube.create(deployment(namespace))
    ref = Ref.of(created)
    assert created["metadata"]["generation"] == 1
    labelled = await kube.patch(ref, {"metadata": {"labels": {"a": "b"}}}, "merge")
    assert labelled["metadata"]["generation"] == 1
    scaled = await kube.patch(ref, {"spec": {"minReadySeconds": 7}}, "merge")
    assert scaled["metadata"]["generation"] == 2
    reported = await kube.patch(ref, {"status": {"observedGeneration": 2}}, "merge", subresource="status")
    assert reported["metadata"]["generation"] == 2


# -- patches -------------------------------------------------------------------------------------------


async def test_json_patch(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(config_map(namespace, a="1", b="2")))
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "one"},
        {"op": "remove", "path": "/data/b"},
        {"op": "add", "path": "/metadata/annotations", "value": {"example.com/x~y": "z"}},
        {"op": "replace", "path": "/metadata/annotations/example.com~1x~0y", "value": "new"},
    ]
    # "~" is no good in an annotation's key: the patch applies, the object is refused
    error = await refusal(kube.patch(ref, operations))
    assert error.status == 422
    patched = await kube.patch(ref, operations[:3])
    assert patched["data"] == {"a": "one"}


async def test_json_patch_whose_test_fails_changes_nothing(kube: Kube, namespace: str) -> None:
    created = await kube.create(config_map(namespace, a="1"))
    operations = [
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a", "value": "1"},
    ]
    error = await refusal(kube.patch(Ref.of(created), operations))
    assert (error.status, error.reason) == (422, "Invalid")
    assert error.message == "the server rejected our request due to an error in our request"
    assert await kube.get(Ref.of(created)) == created


async def test_json_patch_of_what_is_not_there(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(config_map(namespace)))
    error = await refusal(kube.patch(ref, [{"op": "remove", "path": "/data/nothing"}]))
    assert error.status == 422


async def test_merge_patch_removes_by_null(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(config_map(namespace, labels={"x": "y"}, a="1", b="2")))
    patched = await kube.patch(ref, {"data": {"a": None, "c": "3"}}, "merge")
    assert patched["data"] == {"b": "2", "c": "3"}
    assert patched["metadata"]["labels"] == {"x": "y"}


async def test_strategic_merge_goes_by_the_keys_of_lists(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(deployment(namespace)))

    async def pod_spec(spec: Object) -> Object:
        patched = await kube.patch(ref, {"spec": {"template": {"spec": spec}}}, "strategic")
        found: Object = patched["spec"]["template"]["spec"]
        return found

    added = await pod_spec({"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]})
    assert [c["image"] for c in added["containers"]] == ["none"]
    second = await pod_spec({"containers": [{"name": "side", "image": "other"}]})
    assert {c["name"] for c in second["containers"]} == {"main", "side"}
    env = [{"name": "A", "$patch": "delete"}, {"name": "B", "value": "2"}]
    third = await pod_spec(
        {"containers": [{"name": "main", "env": env}, {"name": "side", "$patch": "delete"}]}
    )
    assert [(c["name"], c["env"]) for c in third["containers"]] == [("main", [{"name": "B", "value": "2"}])]
    one = {"key": "one", "operator": "Exists"}
    assert (await pod_spec({"tolerations": [one]}))["tolerations"] == [one]
    two = {"key": "two", "operator": "Exists"}
    assert (await pod_spec({"tolerations": [two]}))["tolerations"] == [two]  # replaced: this list has no key


async def test_strategic_merge_of_conditions(kube: Kube, node: str) -> None:
    ref = Ref("v1", "Node", node)

    async def conditions(*changed: Object) -> dict[str, str]:
        patched = await kube.patch(
            ref, {"status": {"conditions": list(changed)}}, "strategic", subresource="status"
        )
        return {c["type"]: c["status"] for c in patched["status"]["conditions"] if c["type"] in "XY"}

    assert await conditions({"type": "X", "status": "True"}) == {"X": "True"}
    assert await conditions({"type": "Y", "status": "False"}) == {"X": "True", "Y": "False"}
    assert await conditions({"type": "X", "status": "False"}) == {"X": "False", "Y": "False"}


async def test_cordon_by_strategic_merge_and_its_undo(kube: Kube, node: str) -> None:
    ref = Ref("v1", "Node", node)
    assert (await kube.patch(ref, {"spec": {"unschedulable": True}}, "strategic"))["spec"]["unschedulable"]
    cordoned = await kube.list(NODES, fields={"spec.unschedulable": "true"})
    assert node in [n["metadata"]["name"] for n in cordoned]
    freed = await kube.patch(ref, {"spec": {"unschedulable": None}}, "strategic")
    assert "unschedulable" not in freed["spec"]
    others = await kube.ask("GET", NODES.path(), query={"fieldSelector": "spec.unschedulable!=true"})
    assert node in [n["metadata"]["name"] for n in others["items"]]


async def test_an_unknown_patch_type_is_refused(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(config_map(namespace)))
    path = CONFIG_MAPS.path(namespace, ref.name)
    error = await refusal(kube.request("PATCH", path, body={}, content_type="application/json"))
    assert (error.status, error.reason) == (415, "UnsupportedMediaType")


# -- server-side apply ------------------------------------------------------------------------------


async def apply(kube: Kube, obj: Object, manager: str, **query: str) -> Object:
    metadata = obj["metadata"]
    path = (await kube.resource(obj["apiVersion"], obj["kind"])).path(metadata["namespace"], metadata["name"])
    content = "application/apply-patch+yaml"
    query |= {"fieldManager": manager}
    applied: Object = json.loads(
        await kube.request("PATCH", path, query=query, body=obj, content_type=content)
    )
    return applied


async def test_apply_creates_and_removes_what_its_manager_drops(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, a="1", b="2")
    created = await apply(kube, obj, "one")
    assert created["data"] == {"a": "1", "b": "2"}
    assert [(m["manager"], m["operation"]) for m in created["metadata"]["managedFields"]] == [
        ("one", "Apply")
    ]
    del obj["data"]["b"]
    assert (await apply(kube, obj, "one"))["data"] == {"a": "1"}


async def test_apply_leaves_what_others_own(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, a="1")
    await apply(kube, obj, "one")
    other = obj | {"data": {"b": "2"}}
    assert (await apply(kube, other, "two"))["data"] == {"a": "1", "b": "2"}
    assert (await apply(kube, obj | {"data": {}}, "one"))["data"] == {"b": "2"}


async def test_apply_conflicts_with_another_manager(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, a="1")
    await apply(kube, obj, "one")
    other = obj | {"data": {"a": "2"}}
    error = await refusal(apply(kube, other, "two"))
    assert (error.status, error.reason) == (409, "Conflict")
    assert error.message.startswith('Apply failed with 1 conflict: conflict with "one"')
    (cause,) = error.details["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".data.a")
    assert (await apply(kube, other, "two", force="true"))["data"] == {"a": "2"}
    error = await refusal(apply(kube, obj, "one"))
    assert 'conflict with "two"' in error.message


async def test_apply_conflicts_with_an_update(kube: Kube, namespace: str) -> None:
    obj = deployment(namespace)
    created = await apply(kube, obj, "one")
    await kube.patch(Ref.of(created), {"spec": {"minReadySeconds": 5}}, "merge")
    await kube.patch(Ref.of(created), {"spec": {"replicas": 1}}, "merge")
    error = await refusal(apply(kube, obj, "one"))
    assert error.status == 409
    assert [c["field"] for c in error.details["causes"]] == [".spec.replicas"]
    assert f'conflict with "{kube.manager}"' in error.message


async def test_apply_merges_lists_by_key(kube: Kube, namespace: str) -> None:
    obj = deployment(namespace)
    await apply(kube, obj, "one")
    template = json.loads(json.dumps(obj["spec"]["template"]))
    template["spec"]["containers"] = [{"name": "side", "image": "other"}]
    side = {k: obj[k] for k in ("apiVersion", "kind", "metadata")} | {"spec": {"template": template}}
    applied = await apply(kube, side, "two")
    assert {c["name"] for c in applied["spec"]["template"]["spec"]["containers"]} == {"main", "side"}
    del template["spec"]
    applied = await apply(kube, side, "two")
    assert [c["name"] for c in applied["spec"]["template"]["spec"]["containers"]] == ["main"]


# -- dry run, lists, subresources -----------------------------------------------------------------------


async def test_dry_run_keeps_nothing(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, a="1")
    tried = await kube.dry_run(obj)
    assert tried["metadata"]["uid"]
    assert await kube.find(Ref.of(obj)) is None
    created = await kube.create(obj)
    path = CONFIG_MAPS.path(namespace, obj["metadata"]["name"])
    patch = {"data": {"a": "2"}}
    query = {"dryRun": "All"}
    answer = await kube.request(
        "PATCH", path, query=query, body=patch, content_type="application/merge-patch+json"
    )
    assert json.loads(answer)["data"] == {"a": "2"}
    await kube.request("DELETE", path, query=query)
    assert await kube.get(Ref.of(obj)) == created


async def test_label_selectors(kube: Kube, namespace: str) -> None:
    mark = unique("mark")
    for letter, size in zip("abc", ("7", "8", "nine"), strict=True):
        labels = {"mark": mark, "letter": letter, "size": size}
        await kube.create(config_map(namespace, f"{mark}-{letter}", labels))
    await kube.create(config_map(namespace, f"{mark}-none", {"mark": mark}))

    async def found(selector: str) -> str:
        listed = await kube.list(CONFIG_MAPS, namespace, labels=f"mark={mark},{selector}")
        return " ".join(o["metadata"]["name"].removeprefix(f"{mark}-") for o in listed)

    assert await found("letter=a") == "a"
    assert await found("letter==a") == "a"
    assert await found("letter!=a") == "b c none"
    assert await found("letter in (a, c)") == "a c"
    assert await found("letter notin (a,c)") == "b none"
    assert await found("letter") == "a b c"
    assert await found("!letter") == "none"
    assert await found("size>7") == "b"
    assert await found("size < 8") == "a"


@pytest.mark.parametrize(
    "query", [{"labelSelector": "a in"}, {"labelSelector": "a>b"}, {"fieldSelector": "spec.nothing=1"}]
)
async def test_bad_selectors_are_refused(kube: Kube, namespace: str, query: dict[str, str]) -> None:
    error = await refusal(kube.request("GET", PODS.path(namespace), query=query))
    assert (error.status, error.reason) == (400, "BadRequest")


async def test_pages_show_one_moment(kube: Kube, namespace: str) -> None:
    mark = unique("page")
    for number in range(5):
        await kube.create(config_map(namespace, f"{mark}-{number}", {"mark": mark}))

    async def page(token: str = "") -> Object:
        query = {"labelSelector": f"mark={mark}", "limit": "2", "continue": token}
        answer: Object = json.loads(await kube.request("GET", CONFIG_MAPS.path(namespace), query=query))
        return answer

    first = await page()
    await kube.delete(Ref("v1", "ConfigMap", f"{mark}-4", namespace))
    await kube.create(config_map(namespace, f"{mark}-9", {"mark": mark}))
    second = await page(first["metadata"]["continue"])
    third = await page(second["metadata"]["continue"])
    names = [o["metadata"]["name"][-1] for p in (first, second, third) for o in p["items"]]
    assert names == ["0", "1", "2", "3", "4"]
    assert "continue" not in third["metadata"]
    assert {p["metadata"]["resourceVersion"] for p in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }


async def test_status_and_spec_are_written_apart(kube: Kube, namespace: str, node: str) -> None:
    ref = Ref.of(await kube.create(pod(namespace, node=node)))
    ignored = await kube.patch(ref, {"status": {"message": "no"}}, "merge")
    assert "message" not in ignored["status"]
    path = PODS.path(namespace, ref.name, "status")
    current = await kube.get(ref)
    current["status"]["message"] = "yes"
    current["spec"]["activeDeadlineSeconds"] = 5
    written = json.loads(await kube.request("PUT", path, body=current))
    assert written["status"]["message"] == "yes"
    assert "activeDeadlineSeconds" not in written["spec"]


async def test_a_pods_spec_is_fixed(kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(pod(namespace)))
    error = await refusal(kube.patch(ref, {"spec": {"nodeName": "elsewhere"}}, "merge"))
    assert (error.status, error.reason) == (422, "Invalid")


async def test_binding_a_pod(kube: Kube, namespace: str, node: str) -> None:
    ref = Ref.of(await kube.create(pod(namespace)))
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": ref.name},
        "target": {"kind": "Node", "name": node},
    }
    path = PODS.path(namespace, ref.name, "binding")
    await kube.request("POST", path, body=body)
    bound = await kube.get(ref)
    assert bound["spec"]["nodeName"] == node
    assert [p["metadata"]["name"] for p in await kube.list(PODS, namespace, fields={"spec.nodeName": node})]
    assert (await refusal(kube.request("POST", path, body=body))).status == 409


async def test_scale_subresource(kube: Kube, namespace: str) -> None:
    created = await kube.create(deployment(namespace))
    path = DEPLOYMENTS.path(namespace, created["metadata"]["name"], "scale")
    scale = json.loads(await kube.request("GET", path))
    assert (scale["kind"], scale["apiVersion"], scale["spec"].get("replicas", 0)) == (
        "Scale",
        "autoscaling/v1",
        0,
    )
    scale["spec"]["replicas"] = 2
    del scale["metadata"]["resourceVersion"]  # the deployment's controller writes its status meanwhile
    assert json.loads(await kube.request("PUT", path, body=scale))["spec"] == {"replicas": 2}
    changed = await kube.get(Ref.of(created))
    assert changed["spec"]["replicas"] == 2
    assert changed["metadata"]["generation"] == 2


async def test_a_lease_is_held_by_one(kube: Kube, namespace: str) -> None:
    obj = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": unique("lease"), "namespace": namespace},
        "spec": {
            "holderIdentity": "one",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }
    created = await kube.create(obj)
    spec = created["spec"] | {"renewTime": "2026-01-01T00:00:05.000000Z"}
    renewed = await put(kube, LEASES, created | {"spec": spec})
    assert renewed["spec"]["renewTime"] == "2026-01-01T00:00:05.000000Z"
    taken = created | {"spec": spec | {"holderIdentity": "two"}}
    assert (await refusal(put(kube, LEASES, taken))).status == 409
    guarded = [
        {"op": "test", "path": "/spec/holderIdentity", "value": "two"},
        {"op": "remove", "path": "/spec/holderIdentity"},
    ]
    assert (await refusal(kube.patch(Ref.of(created), guarded))).status == 422


async def test_asking_for_ones_own_permissions(kube: Kube) -> None:
    attributes = {"verb": "create", "resource": "pods", "subresource": "eviction", "namespace": "default"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert json.loads(await kube.request("POST", path, body=body))["status"]["allowed"] is True
