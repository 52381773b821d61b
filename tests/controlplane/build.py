"""Builds the control plane once per machine, because Kubernetes takes a quarter of an hour to compile.

The binary lies outside the tree, in ``${XDG_CACHE_HOME:-~/.cache}/gameday/controlplane-<hash of inputs>``:
a clean checkout, another worktree or a second CI run finds it again.
``python tests/controlplane/build.py`` prints the folders; a second call takes milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
INPUTS = ("go.mod", "go.sum", "main.go")
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
BINARY = "controlplane"
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


class BuildError(Exception):
    """Says what is missing and what to install."""


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gameday"


def program(name: str) -> Path | None:
    """One of the programs if they are built; builds nothing."""
    path = _folder() / name
    return path if path.exists() else None


def build() -> Path:
    """The folder holding one symlink per program; compiles them when this source was never built here."""
    folder = _folder()
    if not (folder / "kubectl").exists():
        with one_at_a_time(folder):
            if not (folder / "kubectl").exists():
                _compile(folder)
    return folder


def crds() -> Path:
    """The folder holding the upstream CRDs as YAML files."""
    digest = hashlib.sha256(json.dumps(CRDS, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_root() / f"crds-{digest}"
    if not folder.exists():
        with one_at_a_time(folder):
            if not folder.exists():
                _collect_crds(folder)
    return folder


def _folder() -> Path:
    content = b"\0".join((SOURCE / name).read_bytes() for name in INPUTS)
    return cache_root() / f"controlplane-{hashlib.sha256(content).hexdigest()[:12]}"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Two builds side by side would take twice as long and write the same file: the second waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def go() -> str:
    found = shutil.which("go")
    if found is None:
        raise BuildError(
            "Go is not installed, and the real control plane is compiled from its Go modules. "
            f"Install Go {_go_version()} or newer (https://go.dev/doc/install) and put it on PATH; "
            "`make test` needs no Go."
        )
    return found


def _go_version() -> str:
    lines = (SOURCE / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("go "))


def _kubernetes_version() -> str:
    lines = (SOURCE / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("k8s.io/kubernetes "))


def _compile(folder: Path) -> None:
    compiler = go()
    version = _kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    ldflags = "-s -w " + " ".join(f"-X {VERSION_PACKAGE}.{key}={value}" for key, value in stamps.items())
    staging = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    started = time.monotonic()
    say(f"building Kubernetes {version} (about 15 minutes on two cores the first time, seconds afterwards)")
    _run_with_progress(
        [
            compiler,
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            f"-ldflags={ldflags}",
            "-o",
            staging / BINARY,
        ],
        total=_package_count(compiler),
        log=folder.with_name(f"{folder.name}.log"),
    )
    for program in PROGRAMS:
        (staging / program).symlink_to(BINARY)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    say(f"built {folder} in {time.monotonic() - started:.0f} s")


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0"}


def _package_count(compiler: str) -> int:
    """How many packages there are to compile; downloads the modules on the way."""
    say("downloading Go modules")
    command = [compiler, "list", "-deps"]
    listed = subprocess.run(
        command, cwd=SOURCE, env=_environment(), capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        raise BuildError(f"could not resolve the Go modules of the control plane:\n{tail(listed.stderr)}")
    return len(listed.stdout.split())


def _run_with_progress(command: list[str | Path], *, total: int, log: Path) -> None:
    """`go build -v` names each package as it compiles it: that is the progress, and the log of a failure."""
    process = subprocess.Popen(
        command, cwd=SOURCE, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    every = 10 if sys.stderr.isatty() else 100
    with log.open("w") as written:
        for count, line in enumerate(process.stderr, start=1):
            written.write(line)
            if count % every == 0:
                say(f"compiled {count} of at most {total} packages", again=True)
    if process.wait() != 0:
        raise BuildError(f"go build failed; its last lines (all of it: {log}):\n{tail(log.read_text())}")


def _collect_crds(folder: Path) -> None:
    staging = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, (module, path) in CRDS.items():
        source = _module_folder(module) / path
        if not source.exists():
            raise BuildError(f"{module} holds no {path}: the CRD moved; correct CRDS in {__file__}")
        shutil.copyfile(source, staging / name)
        (staging / name).chmod(0o644)
    staging.rename(folder)


def _module_folder(module: str) -> Path:
    say(f"fetching {module}")
    answer = subprocess.run(
        [go(), "mod", "download", "-json", module], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    try:
        return Path(json.loads(answer.stdout)["Dir"])
    except (ValueError, KeyError):
        raise BuildError(f"could not download {module}:\n{tail(answer.stdout + answer.stderr)}") from None


def tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def say(message: str, *, again: bool = False) -> None:
    end = "\r" if again and sys.stderr.isatty() else "\n"
    print(f"controlplane: {message}", end=end, file=sys.stderr, flush=True)


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
