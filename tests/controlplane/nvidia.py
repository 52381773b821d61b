"""NVIDIA's device plugin and a driver for it to load, compiled once per machine, for a node without GPUs.

The plugin is NVIDIA's, from its Go module. The driver's library is NVIDIA's simulation of a DGX A100, which
comes with go-nvml, behind the C functions that the plugin calls (`driver/driver.go`).
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tests.controlplane import images
from tests.support.go_module import BuildError, cache_root, go, one_at_a_time, say, tail

SOURCE = Path(__file__).resolve().parent / "driver"
INPUTS = ("go.mod", "go.sum", "driver.go")
LIBRARY = "libnvidia-ml.so.1"
PLUGIN = "nvidia-device-plugin"
PLUGIN_PACKAGE = "github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin"
IMAGE = "localhost/gameday/nvidia-device-plugin:test"


def build() -> Path:
    """The folder with the library and the plugin; compiles them when this source was never built here."""
    content = b"\0".join((SOURCE / name).read_bytes() for name in INPUTS)
    folder = cache_root() / f"nvidia-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.exists():
        with one_at_a_time(folder):
            if not folder.exists():
                _compile(folder)
    return folder


def image() -> Path:
    """The plugin's image: it lacks nothing but the driver, which is the node's, as on real nodes."""
    base, plugin = images.build(), build() / PLUGIN
    archive = cache_root() / f"{base.stem}-{plugin.parent.name}.tar"
    if not archive.exists():
        staging = archive.with_name(f"{archive.name}.{os.getpid()}")
        images.write_archive(staging, IMAGE, images.layer_of(base), _layer(plugin))
        staging.replace(archive)
    return archive


def _compile(folder: Path) -> None:
    if shutil.which("gcc") is None:
        raise BuildError(
            "gcc is not installed, and a driver's library is C to its callers: apt-get install gcc"
        )
    started = time.monotonic()
    say("nvidia", "building NVIDIA's device plugin and the simulated driver (a minute or two the first time)")
    staging = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    bindings = _run("list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").strip()
    if not bindings:  # not downloaded yet
        _run("mod", "download")
        bindings = _run("list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").strip()
    header = f"-O2 -I{bindings}/pkg/nvml -DNVML_NO_UNVERSIONED_FUNC_DEFS"
    common = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o")
    _run("build", "-buildmode=c-shared", *common, str(staging / LIBRARY), ".", CGO_CFLAGS=header)
    _run("build", *common, str(staging / PLUGIN), PLUGIN_PACKAGE)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    say("nvidia", f"built {folder} in {time.monotonic() - started:.0f} s")


def _run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [go(), *arguments],
        cwd=SOURCE,
        env={**os.environ, "CGO_ENABLED": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"go {arguments[0]} failed in {SOURCE}:\n{tail(done.stderr)}")
    return done.stdout


def _layer(plugin: Path) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as layer:
        entry = images.member(f"usr/bin/{PLUGIN}", plugin.stat().st_size, 0o755)
        with plugin.open("rb") as content:
            layer.addfile(entry, content)
    return output.getvalue()


def main() -> int:
    try:
        print(build())
        print(image())
    except BuildError as error:
        print(f"controlplane: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
