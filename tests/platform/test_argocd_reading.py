"""What is read out of Applications: who deploys an object, and why an Application is not well."""

from __future__ import annotations

import pytest

from gameday.platform.argocd import owner_in, short
from gameday.platform.argocd_failure import diagnose
from gameday.platform.objects import Object

pytestmark = pytest.mark.fast

UNABLE = "rpc error: code = Unknown desc ="


def application(name: str = "web", namespace: str = "argocd", **status: object) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {}, "status": status}


def deployment(**meta: object) -> Object:
    named = {"name": "web", "namespace": "prod", **meta}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named}


def tracking(text: str) -> Object:
    return deployment(annotations={"argocd.argoproj.io/tracking-id": text})


LISTED = {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "prod", "name": "web"}


def test_the_tracking_annotation_names_the_owner() -> None:
    known = [application("other"), application("web")]
    assert owner_in(tracking("web:apps/Deployment:prod/web"), known) is known[1]


def test_an_application_of_another_namespace_is_named_with_it() -> None:
    known = [application("web"), application("web", "team_a"), application("web", "team")]
    assert owner_in(tracking("team_web:apps/Deployment:prod/web"), known) is known[2]


def test_an_annotation_that_was_copied_names_nobody() -> None:
    assert owner_in(tracking("web:apps/Deployment:prod/original"), [application("web")]) is None


def test_the_label_counts_only_where_the_application_lists_the_object() -> None:
    obj = deployment(labels={"app.kubernetes.io/instance": "web"})
    lister = application("second", resources=[LISTED])
    assert owner_in(obj, [application("web")]) is None
    assert owner_in(obj, [lister, application("web", resources=[LISTED])])["metadata"]["name"] == "web"  # type: ignore[index]
    assert owner_in(deployment(), [application("web"), lister]) is lister


@pytest.mark.parametrize(
    ("revision", "shown"),
    [
        ("4f1c0e6b7a9d2835e1f40c96b8d7a5e3f2019c84", "4f1c0e6"),
        ("1.2.3", "1.2.3"),
        ("4f1c0e6b7a9d2835e1f40c96b8d7a5e3f2019c84,2.0.0", "4f1c0e6,2.0.0"),
    ],
)
def test_revisions_are_short_where_they_are_hashes(revision: str, shown: str) -> None:
    assert short(revision) == shown


def condition(kind: str, message: str) -> Object:
    return application(conditions=[{"type": kind, "message": message}], sync={"status": "Unknown"})


def operation(phase: str, message: str, *resources: Object) -> Object:
    state = {"phase": phase, "message": message, "syncResult": {"resources": list(resources)}}
    return application(operationState=state)


def failed(message: str, **more: object) -> Object:
    return {"kind": "Deployment", "name": "web", "status": "SyncFailed", "message": message, **more}


def unwell(state: str, message: str = "") -> Object:
    entry = {**LISTED, "health": {"status": state, "message": message}}
    return application(health={"status": state}, resources=[entry])


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        (
            condition(
                "ComparisonError", f"failed to generate manifest for source 1: {UNABLE} `helm template`"
            ),
            "manifest generation",
        ),
        (
            condition("ComparisonError", f"failed to generate manifest: {UNABLE} authentication required"),
            "permission",
        ),
        (
            condition(
                "ComparisonError", "failed to generate manifest: Unavailable desc = dial tcp 10.0.0.7:8081"
            ),
            "dependency",
        ),
        (
            condition(
                "ComparisonError", "error calculating structured merge diff: field not declared in schema"
            ),
            "comparison",
        ),
        (
            condition("InvalidSpecError", "application repo x is not permitted in project 'team'"),
            "permission",
        ),
        (
            condition("InvalidSpecError", "application references project team which does not exist"),
            "dependency",
        ),
        (
            operation(
                "Failed", "one or more objects failed to apply", failed("spec.replicas: Invalid value")
            ),
            "apply",
        ),
        (
            operation("Failed", "…", failed('deployments.apps is forbidden: User "argocd" cannot create')),
            "permission",
        ),
        (operation("Failed", "…", failed('no matches for kind "Certificate" in version')), "dependency"),
        (operation("Failed", "…", failed("failed calling webhook: connection refused")), "dependency"),
        (
            operation(
                "Failed", "…", {"kind": "Job", "name": "db", "hookType": "PreSync", "hookPhase": "Failed"}
            ),
            "runtime",
        ),
        (
            operation("Error", f"ComparisonError: {UNABLE} unable to resolve 'v9' to a commit SHA"),
            "manifest generation",
        ),
        (condition("SyncError", "Failed last sync attempt to [4f1c0e6]: 1 resource is invalid"), "apply"),
        (unwell("Degraded", 'Deployment "web" exceeded its progress deadline'), "health"),
        (unwell("Missing"), "apply"),
        (condition("OrphanedResourceWarning", "Application has 2 orphaned resources"), "comparison"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_put_down_to_its_cause(broken: Object, cause: str) -> None:
    found = diagnose(broken)
    assert found is not None
    assert found.cause == cause, str(found)


@pytest.mark.parametrize(
    ("warning", "cause"),
    [
        ("BackOff: Back-off restarting failed container", "runtime"),
        ("Failed: Error: ImagePullBackOff", "runtime"),
        ('FailedMount: MountVolume.SetUp failed: secret "token" not found', "dependency"),
        ('FailedCreate: pods "web-1" is forbidden: exceeded quota', "permission"),
        ("ScalingReplicaSet: Scaled up", "health"),
    ],
)
def test_events_say_why_something_is_degraded(warning: str, cause: str) -> None:
    found = diagnose(unwell("Degraded", "exceeded its progress deadline"), [warning])
    assert found is not None
    assert found.cause == cause
    assert (warning in found.says) == (cause != "health")


def test_an_application_that_is_well_has_no_diagnosis() -> None:
    assert diagnose(application(health={"status": "Healthy"}, sync={"status": "Synced"})) is None
    orphaned = condition("OrphanedResourceWarning", "2 orphaned resources")
    orphaned["status"]["sync"]["status"] = "Synced"
    assert diagnose(orphaned) is None
