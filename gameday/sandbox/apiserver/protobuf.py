"""Reads the protobuf bodies that kubectl's own create commands and drain send; nothing is ever written so.

Covers what those commands set. A body with anything else in it is refused rather than half understood.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from gameday.sandbox.apiserver.status import bad_request

Json = dict[str, Any]
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
# message: number name type, …   s text, i integer, b boolean, y bytes, [..] list, {..} map from text.
# "!" marks fields that say something even when zero or empty.
_TABLE = """
ObjectMeta: 1 name s, 2 generateName s, 3 namespace s, 5 uid s, 6 resourceVersion s, 7 generation i,
  8 creationTimestamp Time, 11 labels {s}, 12 annotations {s}, 13 ownerReferences [OwnerReference],
  14 finalizers [s]
OwnerReference: 5 apiVersion s, 1 kind s, 3 name s, 4 uid s, 6 controller b!, 7 blockOwnerDeletion b!
LabelSelector: 1 matchLabels {s}, 2 matchExpressions [LabelSelectorRequirement]
LabelSelectorRequirement: 1 key s, 2 operator s, 3 values [s]
Namespace: 1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status Ignored
NamespaceSpec: 1 finalizers [s]
ConfigMap: 1 metadata ObjectMeta, 4 immutable b!, 2 data {s}, 3 binaryData {y}
Secret: 1 metadata ObjectMeta, 5 immutable b!, 2 data {y}, 4 stringData {s}, 3 type s
ServiceAccount: 1 metadata ObjectMeta, 4 automountServiceAccountToken b!
Service: 1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status Ignored
ServiceSpec: 1 ports [ServicePort], 2 selector {s}, 3 clusterIP s, 4 type s, 5 externalIPs [s],
  7 sessionAffinity s, 8 loadBalancerIP s, 10 externalName s, 11 externalTrafficPolicy s,
  12 healthCheckNodePort i, 13 publishNotReadyAddresses b
ServicePort: 1 name s, 2 protocol s, 6 appProtocol s, 3 port i, 4 targetPort IntOrString, 5 nodePort i
Pod: 1 metadata ObjectMeta, 2 spec PodSpec, 3 status Ignored
PodSpec: 20 initContainers [Container], 2 containers [Container], 3 restartPolicy s,
  4 terminationGracePeriodSeconds i!, 5 activeDeadlineSeconds i!, 6 dnsPolicy s, 7 nodeSelector {s},
  8 serviceAccountName s, 9 serviceAccount s, 10 nodeName s, 11 hostNetwork b, 12 hostPID b, 13 hostIPC b,
  14 securityContext Ignored, 16 hostname s, 17 subdomain s, 19 schedulerName s,
  22 tolerations [Toleration], 24 priorityClassName s, 25 priority i!
PodTemplateSpec: 1 metadata ObjectMeta, 2 spec PodSpec
Container: 1 name s, 2 image s, 3 command [s], 4 args [s], 5 workingDir s, 6 ports [ContainerPort],
  7 env [EnvVar], 8 resources ResourceRequirements, 13 terminationMessagePath s,
  20 terminationMessagePolicy s, 14 imagePullPolicy s, 16 stdin b, 17 stdinOnce b, 18 tty b
ContainerPort: 1 name s, 2 hostPort i, 3 containerPort i, 4 protocol s, 5 hostIP s
EnvVar: 1 name s, 2 value s
ResourceRequirements: 1 limits {Quantity}, 2 requests {Quantity}
Toleration: 1 key s, 2 operator s, 3 value s, 4 effect s, 5 tolerationSeconds i!
ResourceQuota: 1 metadata ObjectMeta, 2 spec ResourceQuotaSpec, 3 status Ignored
ResourceQuotaSpec: 1 hard {Quantity}, 2 scopes [s]
Deployment: 1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status Ignored
DeploymentSpec: 1 replicas i!, 2 selector LabelSelector, 3 template PodTemplateSpec,
  4 strategy DeploymentStrategy, 5 minReadySeconds i, 6 revisionHistoryLimit i!, 7 paused b,
  9 progressDeadlineSeconds i!
DeploymentStrategy: 1 type s
Job: 1 metadata ObjectMeta, 2 spec JobSpec, 3 status Ignored
JobSpec: 1 parallelism i!, 2 completions i!, 3 activeDeadlineSeconds i!, 7 backoffLimit i!,
  4 selector LabelSelector, 5 manualSelector b!, 6 template PodTemplateSpec, 8 ttlSecondsAfterFinished i!,
  9 completionMode s, 10 suspend b!
CronJob: 1 metadata ObjectMeta, 2 spec CronJobSpec, 3 status Ignored
CronJobSpec: 1 schedule s, 8 timeZone s, 2 startingDeadlineSeconds i!, 3 concurrencyPolicy s,
  4 suspend b!, 5 jobTemplate JobTemplateSpec, 6 successfulJobsHistoryLimit i!,
  7 failedJobsHistoryLimit i!
JobTemplateSpec: 1 metadata ObjectMeta, 2 spec JobSpec
Eviction: 1 metadata ObjectMeta, 2 deleteOptions DeleteOptions
DeleteOptions: 1 gracePeriodSeconds i!, 2 preconditions Preconditions, 3 orphanDependents b!,
  4 propagationPolicy s, 5 dryRun [s]
Preconditions: 1 uid s, 2 resourceVersion s
PodDisruptionBudget: 1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status Ignored
PodDisruptionBudgetSpec: 1 minAvailable IntOrString, 2 selector LabelSelector,
  3 maxUnavailable IntOrString, 4 unhealthyPodEvictionPolicy s
Role: 1 metadata ObjectMeta, 2 rules [PolicyRule]
ClusterRole: 1 metadata ObjectMeta, 2 rules [PolicyRule]
PolicyRule: 1 verbs [s], 2 apiGroups [s], 3 resources [s], 4 resourceNames [s], 5 nonResourceURLs [s]
RoleBinding: 1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef
ClusterRoleBinding: 1 metadata ObjectMeta, 2 subjects [Subject], 3 roleRef RoleRef
Subject: 1 kind s, 2 apiGroup s, 3 name s, 4 namespace s
RoleRef: 1 apiGroup s, 2 kind s, 3 name s
PriorityClass: 1 metadata ObjectMeta, 2 value i, 3 globalDefault b, 4 description s, 5 preemptionPolicy s
SelfSubjectReview: 1 metadata ObjectMeta, 2 status Ignored
SelfSubjectRulesReview: 1 metadata ObjectMeta, 2 spec SelfSubjectRulesReviewSpec, 3 status Ignored
SelfSubjectRulesReviewSpec: 1 namespace s
SelfSubjectAccessReview: 1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status Ignored
SelfSubjectAccessReviewSpec: 1 resourceAttributes ResourceAttributes,
  2 nonResourceAttributes NonResourceAttributes
ResourceAttributes: 1 namespace s, 2 verb s, 3 group s, 4 version s, 5 resource s, 6 subresource s,
  7 name s
NonResourceAttributes: 1 path s, 2 verb s
"""


def _messages() -> dict[str, dict[int, tuple[str, str]]]:
    found = {}
    for line in _TABLE.replace(",\n ", ",").strip().splitlines():
        name, _, fields = line.partition(": ")
        entries = (field.split() for field in fields.split(","))
        found[name] = {int(number): (field, kind) for number, field, kind in entries}
    return found


_MESSAGES = _messages()


def decode(body: bytes) -> Json:
    """The object in an enveloped protobuf body. Raises 400 for what is not understood."""
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("it does not begin with k8s\\0")
        envelope = dict(_fields(body[len(_MAGIC) :]))
        type_meta = dict(_fields(envelope[1]))
        kind = type_meta[2].decode()
        obj: Json = {"apiVersion": type_meta[1].decode(), "kind": kind}
        return obj | _message(kind, envelope.get(2, b""))
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise bad_request(f"cannot read the protobuf body ({error}); send JSON instead") from None


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: an int for varints, bytes for what has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("it is cut off")
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value - (1 << 64) if value >> 63 else value), at


def _message(name: str, data: bytes) -> Json:
    if name not in _MESSAGES:
        raise ValueError(f"unknown message {name}")
    result: Json = {}
    for number, raw in _fields(data):
        if number not in _MESSAGES[name]:
            if raw:
                raise ValueError(f"unknown field {number} in {name}")
            continue
        field, kind = _MESSAGES[name][number]
        if kind.startswith("["):
            result.setdefault(field, []).append(_value(kind[1:-1], raw))
        elif kind.startswith("{"):
            entry = dict(_fields(raw))
            key = entry.get(1, b"").decode()
            result.setdefault(field, {})[key] = _value(kind[1:-1], entry.get(2, b""))
        else:
            value = _value(kind.rstrip("!"), raw)
            if kind.endswith("!") or value or field == "metadata":
                result[field] = value
    return result


def _value(kind: str, raw: Any) -> Any:
    match kind:
        case "s":
            return raw.decode()
        case "i":
            return raw
        case "b":
            return bool(raw)
        case "y":
            return base64.b64encode(raw).decode()
        case "Ignored":
            return None
        case "Time":
            seconds = dict(_fields(raw)).get(1)
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
        case "Quantity":
            return dict(_fields(raw)).get(1, b"0").decode()
        case "IntOrString":
            found = dict(_fields(raw))
            return found.get(3, b"").decode() if found.get(1) else found.get(2, 0)
    return _message(kind, raw)
