"""Makes the container image of the tests from this machine's own packages, because there may be no registry.

It holds busybox and Debian's Python: the pods' sandbox, their shell, and what runs the node program.
The archive lies in the cache under a name made of the packages' versions; `ctr images import` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.go_module import BuildError, cache_root

IMAGE = "localhost/gameday/tools:test"
FORMAT = "2"  # change it when the archive is made differently
SYSTEM_PYTHON = Path("/usr/bin/python3")
# Only installing needs these, and they need half of Debian.
NOT_FOLLOWED = {"debconf", "dpkg"}
NOT_COPIED = re.compile(r"^/usr/share/(doc|man|locale|lintian|info|bug|i18n)/|^/usr/lib/\S+/gconv/")
TOOLS = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/bin/busybox", "sleep", "infinity"],
}
MERGED = ("bin", "sbin", "lib", "lib64")


def build() -> Path:
    """The archive of the image; made when these packages were never packed here."""
    packages = _packages()
    digest = hashlib.sha256("\n".join([FORMAT, *packages.values()]).encode()).hexdigest()[:12]
    archive = cache_root() / f"image-{digest}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        staging = archive.with_name(f"{archive.name}.{os.getpid()}")
        write_archive(staging, IMAGE, _layer(packages))
        staging.replace(archive)
    return archive


def write_archive(path: Path, name: str, *layers: bytes, config: Mapping[str, Any] = TOOLS) -> None:
    """An archive as `docker save` writes it; `config` as in the OCI image specification."""
    digests = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    whole = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                platform.machine(), platform.machine()
            ),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": [{"created_by": "gameday's tests"} for _ in layers],
        }
    ).encode()
    names = [f"{digest[7:]}/layer.tar" for digest in digests]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    with tarfile.open(path, "w") as archive:
        for inner, content in [
            *zip(names, layers, strict=True),
            ("config.json", whole),
            ("manifest.json", json.dumps(manifest).encode()),
        ]:
            archive.addfile(member(inner, len(content)), io.BytesIO(content))


def layer_of(archive: Path) -> bytes:
    """The one layer of an archive that `build` made."""
    with tarfile.open(archive) as opened:
        name = next(n for n in opened.getnames() if n.endswith("/layer.tar"))
        content = opened.extractfile(name)
        assert content is not None
        return content.read()


def member(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def _layer(packages: dict[str, str]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as layer:
        for folder in ("dev", "etc", "proc", "sys", "tmp", "run", "root", "var"):
            entry = member(folder, 0, 0o1777 if folder == "tmp" else 0o755)
            entry.type = tarfile.DIRTYPE
            layer.addfile(entry)
        links = {name: f"usr/{name}" for name in MERGED if Path("/", name).is_symlink()}
        # Packages say /lib where the machine has /usr/lib: a link there would shadow the folder.
        names = {str(path.parent.resolve() / path.name)[1:]: path for path in _files(packages)}
        applets = subprocess.run(
            ["busybox", "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        links |= {f"usr/bin/{name}": "busybox" for name in applets if name != "busybox"}
        links |= {"usr/bin/python3": SYSTEM_PYTHON.resolve().name}
        for name, path in sorted(names.items()):
            layer.add(path, name, recursive=False)
        for name, target in sorted(links.items()):
            if name not in names:
                layer.addfile(_link(name, target))
    return output.getvalue()


def _link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def _files(packages: dict[str, str]) -> Iterator[Path]:
    """What is installed of the packages, with the byte code that their installation made."""
    listed = _dpkg("dpkg-query", "--listfiles", *packages)
    for name in sorted(set(listed.splitlines())):
        path = Path(name)
        if not name.startswith("/") or NOT_COPIED.match(name) or not (path.is_symlink() or path.is_file()):
            continue
        yield path
        if path.suffix == ".py":
            yield from path.parent.glob(f"__pycache__/{path.stem}.*.pyc")


def _packages() -> dict[str, str]:
    """Python, busybox and all that they need: name -> "name version"."""
    interpreter = SYSTEM_PYTHON.resolve().name  # python3.11
    installed = _installed()
    wanted = ["busybox-static", f"{interpreter}-minimal", f"lib{interpreter}-stdlib"]
    found: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name in found or name in NOT_FOLLOWED:
            continue
        if name not in installed:
            raise BuildError(
                f"{name} is not installed: the test's container image is made of Debian's packages. "
                f"Install them: apt-get install python3 busybox-static"
            )
        version, needs = installed[name]
        found[name] = f"{name} {version}"
        for alternatives in filter(None, (need.strip() for need in needs.split(","))):
            names = [re.split(r"[ :(]", choice.strip())[0] for choice in alternatives.split("|")]
            wanted += [choice for choice in names if choice in installed][:1]
    return dict(sorted(found.items()))


def _installed() -> dict[str, tuple[str, str]]:
    listed = _dpkg(
        "dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Pre-Depends},${Depends}\n"
    )
    rows = (line.split("\t") for line in listed.splitlines())
    return {name: (version, needs) for name, version, needs in rows}


def _dpkg(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(
            f"could not ask dpkg for the packages of the test's container image: {error}"
        ) from None
