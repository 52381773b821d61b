"""Builds the control plane once per machine, because Kubernetes takes a quarter of an hour to compile.

``python -m tests.controlplane.build`` prints the folders; a second call takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from tests.support.go_module import BuildError, GoModule, cache_root, module_folder, one_at_a_time

SOURCE = Path(__file__).resolve().parent
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
VERSION_PACKAGE = "k8s.io/component-base/version"

# Upstream CRDs travel inside Go modules: name in the cache -> (module@version, path inside it).
# Chaos Mesh tags v2 releases without a /v2 module path, so Go knows them by commit only; this is its main
# branch of September 2026. Argo CD's is the newest whose go.mod asks for no newer Go than Kubernetes does.
CRDS = {
    "chaos-mesh.yaml": (
        "github.com/chaos-mesh/chaos-mesh@v0.9.1-0.20260902003049-47411975a8cb",
        "manifests/crd.yaml",
    ),
    "argo-application.yaml": (
        "github.com/argoproj/argo-cd/v3@v3.5.7",
        "manifests/crds/application-crd.yaml",
    ),
    # The newest that the same Go builds.
    "argo-rollout.yaml": (
        "github.com/argoproj/argo-rollouts@v1.9.2",
        "manifests/crds/rollout-crd.yaml",
    ),
    "istio.yaml": ("istio.io/api@v1.31.1", "kubernetes/customresourcedefinitions.gen.yaml"),
    "cluster-api-machines.yaml": (
        "sigs.k8s.io/cluster-api@v1.14.2",
        "core/config/crd/bases/cluster.x-k8s.io_machines.yaml",
    ),
    "cluster-api-machinesets.yaml": (
        "sigs.k8s.io/cluster-api@v1.14.2",
        "core/config/crd/bases/cluster.x-k8s.io_machinesets.yaml",
    ),
    "sriov-node-states.yaml": (
        "github.com/k8snetworkplumbingwg/sriov-network-operator@v1.6.0",
        "config/crd/bases/sriovnetwork.openshift.io_sriovnetworknodestates.yaml",
    ),
    "sriov-node-policies.yaml": (
        "github.com/k8snetworkplumbingwg/sriov-network-operator@v1.6.0",
        "config/crd/bases/sriovnetwork.openshift.io_sriovnetworknodepolicies.yaml",
    ),
    "network-attachment-definitions.yaml": (
        "github.com/k8snetworkplumbingwg/network-attachment-definition-client@v1.7.7",
        "artifacts/networks-crd.yaml",
    ),
}


def _module() -> GoModule:
    version = GoModule("", SOURCE).version("k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return GoModule(
        "controlplane",
        SOURCE,
        programs=PROGRAMS,
        title=f"Kubernetes {version} (about 15 minutes on two cores the first time, seconds afterwards)",
        stamps={f"{VERSION_PACKAGE}.{key}": value for key, value in stamps.items()},
    )


MODULE = _module()
program = MODULE.program
build = MODULE.build


def crds() -> Path:
    """The folder holding the upstream CRDs as YAML files."""
    digest = hashlib.sha256(json.dumps(CRDS, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_root() / f"crds-{digest}"
    if not folder.exists():
        with one_at_a_time(folder):
            if not folder.exists():
                _collect_crds(folder)
    return folder


def _collect_crds(folder: Path) -> None:
    staging = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, (module, path) in CRDS.items():
        source = module_folder(module) / path
        if not source.exists():
            raise BuildError(f"{module} holds no {path}: the CRD moved; correct CRDS in {__file__}")
        shutil.copyfile(source, staging / name)
        (staging / name).chmod(0o644)
    staging.rename(folder)


def main() -> int:
    try:
        print(build())
        print(crds())
    except BuildError as error:
        print(f"controlplane: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
