"""Which namespaces and nodes are protected in every cluster, and why; a cluster's ConfigMap adds its own.

Names as the projects' own manifests and charts have them by default; a pattern where there are several.
Argo CD is not among them: its faults act on Applications, and these are where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from gameday.ledger.store import NAMESPACE

NAMESPACES: tuple[tuple[str, str], ...] = (
    ("gameday keeps its records there", NAMESPACE),
    ("the cluster's own components run there", "kube-*"),
    ("OpenShift's own components run there", "openshift openshift-*"),
    (
        "the cloud's own components run there",
        "gke-* gmp-* aks-* azure-* eks-* amazon-* aws-* oci-* cloud-provider*",
    ),
    (
        "the cluster's own management runs there",
        "cattle-* fleet-* rancher-* capi-* cap[a-z]-system kubevirt",
    ),
    (
        "the nodes' GPUs and other devices depend on its drivers and plugins",
        "gpu-operator* nvidia-gpu-operator nvidia-device-plugin nvidia-dra-driver* amd-gpu-operator "
        "kube-amd-gpu intel-device-plugins* inteldeviceplugins-system habana-system "
        "node-feature-discovery kmm-*",
    ),
    ("pods there hold the GPUs that others share", "kai-resource-reservation runai-reservation"),
    (
        "the nodes' network devices depend on its drivers and plugins",
        "network-operator nvidia-network-operator sriov-network-operator mellanox* amd-network-operator",
    ),
    (
        "the pods' network depends on it",
        "calico-* tigera-operator cilium cilium-* antrea* ovn-* multus* weave* submariner-*",
    ),
    (
        "pods' volumes depend on it",
        "rook-* longhorn-* openebs portworx px-* trident topolvm-* piraeus-* linstor-* local-path-storage "
        "csi-* *-csi *-csi-* snapshot-controller juicefs* weka* mayastor",
    ),
    (
        "certificates and secrets come from there",
        "cert-manager* external-secrets* vault vault-* sealed-secrets",
    ),
    (
        "requests from outside come through it",
        "ingress ingress-* *-ingress traefik* istio-system istio-* linkerd* metallb* envoy-gateway* "
        "projectcontour contour kong* haproxy-* kgateway-* external-dns",
    ),
    ("its webhooks admit every change", "gatekeeper-system kyverno*"),
    ("nodes come and go by it", "karpenter* cluster-autoscaler nvsentinel medik8s* node-healthcheck* kured"),
    (
        "what waits for GPUs is scheduled by it",
        "kueue-system volcano-system kai-scheduler jobset-system lws-system scheduler-plugins runai runai-*",
    ),
    ("faults are put in and taken out by it", "chaos-mesh"),
    ("it deploys everything else", "flux-system"),
)
NODE_ROLES: Mapping[str, str] = {  # labels, and taints of the same keys
    "node-role.kubernetes.io/control-plane": "it is of the control plane",
    "node-role.kubernetes.io/controlplane": "it is of the control plane",  # RKE
    "node-role.kubernetes.io/master": "it is of the control plane",
    "node-role.kubernetes.io/etcd": "a member of etcd runs there",
    "node-role.kubernetes.io/infra": "the cluster's own infrastructure runs there",  # OpenShift
}
SPACES_KEY, ROLES_KEY = "protectedNamespaces", "protectedNodeLabels"  # of the cluster's ConfigMap
THE_CLUSTERS_WORD = "this cluster's ConfigMap gameday-policy says so"


def why_namespace(name: str, policy: Mapping[str, str]) -> str:
    """Why a namespace is protected, or ""."""
    built_in = ((pattern, reason) for reason, names in NAMESPACES for pattern in names.split())
    for pattern, reason in (*built_in, *_entries(policy.get(SPACES_KEY, ""))):
        if fnmatchcase(name, pattern):
            return reason
    return ""


def why_node(marks: set[str], policy: Mapping[str, str]) -> str:
    """Why a node with these labels and taints is protected, or ""."""
    roles = {**NODE_ROLES, **dict(_entries(policy.get(ROLES_KEY, "")))}
    return next((reason for key, reason in roles.items() if key in marks), "")


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Lines of `pattern` or `pattern: reason`; what follows a # is left out."""
    for line in text.splitlines():
        pattern, _, reason = line.partition("#")[0].partition(":")
        if pattern.strip():
            yield pattern.strip(), reason.strip() or THE_CLUSTERS_WORD
