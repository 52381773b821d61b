"""Builds the real controllers once per machine: one Go module for those whose dependencies allow it.

``python -m tests.systems.build [NAME]...`` prints the folders; a second call takes milliseconds. Another
system is one more entry of MODULES: a folder with go.mod and go.sum, and the names of its programs (see
README.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.go_module import GoModule, print_built

HERE = Path(__file__).resolve().parent

ARGO = GoModule(
    "systems-argo",
    HERE / "go",
    programs=("argocd-application-controller", "argocd-applicationset-controller", "argocd-repo-server"),
    packages=("github.com/argoproj/argo-rollouts/cmd/rollouts-controller",),
    title="Argo CD and Argo Rollouts (about 8 minutes on two cores the first time)",
)
# Its Kubernetes packages are older, so it shares none with the rest.
CHAOS_MESH = GoModule(
    "systems-chaos-mesh",
    HERE / "go_chaos_mesh",
    packages=("github.com/chaos-mesh/chaos-mesh/cmd/chaos-controller-manager",),
    title="Chaos Mesh's controllers (about 6 minutes on two cores the first time)",
)
CHAOS_DAEMON = GoModule(
    "systems-chaos-daemon",
    HERE / "go_chaos_mesh",
    packages=("github.com/chaos-mesh/chaos-mesh/cmd/chaos-daemon",),
    title="Chaos Mesh's daemon (about 5 minutes on two cores the first time)",
    cgo=True,
)
CLUSTER_API = GoModule(
    "systems-cluster-api",
    HERE / "go_cluster_api",
    packages=("sigs.k8s.io/cluster-api/core",),
    title="Cluster API's core (about 3 minutes on two cores the first time)",
)
# These two share what they compile with each other and with Chaos Mesh: older Kubernetes packages.
KUEUE = GoModule(
    "systems-kueue",
    HERE / "go_kueue",
    packages=("sigs.k8s.io/kueue/cmd/kueue",),
    title="Kueue (about 4 minutes on two cores the first time)",
)
JOBSET = GoModule(
    "systems-jobset",
    HERE / "go_jobset",
    packages=("sigs.k8s.io/jobset",),
    title="JobSet (less than a minute after Kueue)",
)
MODULES = (ARGO, CLUSTER_API, CHAOS_MESH, CHAOS_DAEMON, KUEUE, JOBSET)

if __name__ == "__main__":
    sys.exit(print_built(*(m for m in MODULES if m.name in (sys.argv[1:] or [m.name]))))
