"""The names of the fields of built-in kinds, so that a misspelt one is refused or dropped as upstream does.

Only the levels where people write by hand: metadata, the specs of nodes, pods and workloads, containers. What
is further in is taken as it comes.
"""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]
# a type's fields; "name:Type" goes on inside, "name:[Type]" inside the items of a list
_TYPES = """
ObjectMeta name generateName namespace selfLink uid resourceVersion generation creationTimestamp
  deletionTimestamp deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields
Container name image command args workingDir ports envFrom env resources resizePolicy restartPolicy
  restartPolicyRules volumeMounts volumeDevices livenessProbe readinessProbe startupProbe lifecycle
  terminationMessagePath terminationMessagePolicy imagePullPolicy securityContext stdin stdinOnce tty
PodSpec volumes initContainers:[Container] containers:[Container] ephemeralContainers restartPolicy
  terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy nodeSelector serviceAccountName serviceAccount
  automountServiceAccountToken nodeName hostNetwork hostPID hostIPC shareProcessNamespace securityContext
  imagePullSecrets hostname subdomain affinity schedulerName tolerations hostAliases priorityClassName
  priority dnsConfig readinessGates runtimeClassName enableServiceLinks preemptionPolicy overhead
  topologySpreadConstraints setHostnameAsFQDN os hostUsers schedulingGates resourceClaims resources
  hostnameOverride workloadRef schedulingGroup
PodTemplateSpec metadata:ObjectMeta spec:PodSpec
NodeSpec podCIDR podCIDRs providerID unschedulable taints configSource externalID
DeploymentSpec replicas selector template:PodTemplateSpec strategy minReadySeconds revisionHistoryLimit paused
  progressDeadlineSeconds
ReplicaSetSpec replicas minReadySeconds selector template:PodTemplateSpec
StatefulSetSpec replicas selector template:PodTemplateSpec volumeClaimTemplates serviceName
  podManagementPolicy updateStrategy revisionHistoryLimit minReadySeconds
  persistentVolumeClaimRetentionPolicy ordinals
DaemonSetSpec selector template:PodTemplateSpec updateStrategy minReadySeconds revisionHistoryLimit
JobSpec parallelism completions activeDeadlineSeconds podFailurePolicy successPolicy backoffLimit
  backoffLimitPerIndex maxFailedIndexes selector manualSelector template:PodTemplateSpec
  ttlSecondsAfterFinished completionMode suspend podReplacementPolicy managedBy
PodDisruptionBudgetSpec minAvailable selector maxUnavailable unhealthyPodEvictionPolicy
LeaseSpec holderIdentity leaseDurationSeconds acquireTime renewTime leaseTransitions strategy
  preferredHolder
Pod spec:PodSpec status
Node spec:NodeSpec status
Deployment spec:DeploymentSpec status
ReplicaSet spec:ReplicaSetSpec status
StatefulSet spec:StatefulSetSpec status
DaemonSet spec:DaemonSetSpec status
Job spec:JobSpec status
PodDisruptionBudget spec:PodDisruptionBudgetSpec status
Lease spec:LeaseSpec
ConfigMap data binaryData immutable
"""


def _schemas() -> dict[str, Json]:
    """Structural schemas that know names and no types."""
    found: dict[str, Json] = {}
    for line in _TYPES.replace("\n  ", " ").strip().splitlines():
        name, *fields = line.split()
        properties: Json = {}
        for field in fields:
            key, _, inner = field.partition(":")
            schema = found[inner.strip("[]")] if inner else {"x-kubernetes-preserve-unknown-fields": True}
            properties[key] = {"items": schema} if inner.startswith("[") else schema
        found[name] = {"properties": properties}
    return found


_SCHEMAS = _schemas()
METADATA = _SCHEMAS["ObjectMeta"]


def schema_of(resource: Resource) -> Json | None:
    """What is known of a built-in kind's fields; None for kinds that are not looked into."""
    return _SCHEMAS.get(resource.kind) if resource.custom is None else None
