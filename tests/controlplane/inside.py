"""Process 1 of a real node: gives the node a root file system of its own, then only buries the dead.

Run in new namespaces by `node.py`. The root is an overlay over this machine's, in memory: the node has the
machine's programs at their usual places and writes wherever it likes, and all of it, mounts and processes
too, is gone when this process is. Linux does that even when everybody was killed with -9.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

MOUNTED = "mounted"  # the file in the node's directory that says that the root is ready
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse")
# Kubelet sets these, and they belong to no namespace: the node gets files to write to instead.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def main(directory: Path, *shared: Path) -> None:
    groups = _cgroup_mounts()
    _mount("--make-rprivate", "/")
    scratch = directory / "root"
    scratch.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "node", scratch)
    root = _overlay(scratch)
    _system(root, groups)
    _devices(root / "dev")
    for folder in (directory, *shared):  # what either side writes here is seen by the other
        _mount("--bind", folder, _folder(root / folder.relative_to("/")))
    _enter(root)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (directory / MOUNTED).touch()
    _bury()


def _bury() -> None:
    """Orphans become children of process 1: without this each of them would stay as a zombie."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    while True:
        signal.sigwait([signal.SIGCHLD])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _cgroup_mounts() -> list[tuple[str, str, str]]:
    """Where the machine has its control groups: (type, mount point, options)."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [(kind, where, options) for _, where, kind, options, *_ in lines if kind in ("cgroup", "cgroup2")]


def _overlay(scratch: Path) -> Path:
    upper, work, root = (_folder(scratch / name) for name in ("upper", "work", "merged"))
    _mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "node", root)
    # An overlay can't be the upper layer of another, and containers have overlays of their own.
    for folder in ("var/lib/containerd", "var/lib/kubelet", "run", "tmp"):
        _mount("-t", "tmpfs", "node", _folder(root / folder))
    return root


def _system(root: Path, groups: list[tuple[str, str, str]]) -> None:
    _mount("-t", "proc", "proc", root / "proc")
    for name in KERNEL_SETTINGS:
        setting, copy = root / "proc/sys" / name, root / "run" / name.replace("/", ".")
        if setting.exists():
            copy.write_text(setting.read_text())
            _mount("--bind", copy, setting)
    _mount("-t", "sysfs", "sysfs", root / "sys")
    if len(groups) > 1:
        _mount("-t", "tmpfs", "cgroup", root / "sys/fs/cgroup")
    for kind, where, options in groups:
        # What is mounted there, without how; only the machine itself may say who cleans up a hierarchy.
        chosen = [o for o in options.split(",") if "=" not in o or o.startswith("name=")]
        which = ["-o", ",".join(chosen)] if kind == "cgroup" else []
        _mount("-t", kind, *which, kind, _folder(root / where.lstrip("/")))


def _devices(dev: Path) -> None:
    machine = Path("/dev")
    _mount("-t", "tmpfs", "-o", "mode=755", "dev", dev)
    for name in DEVICES:
        if (machine / name).exists():
            os.mknod(dev / name, stat.S_IFCHR | 0o666, (machine / name).stat().st_rdev)
            (dev / name).chmod(0o666)
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", _folder(dev / "pts"))
    _mount("-t", "tmpfs", "shm", _folder(dev / "shm"))
    _mount("-t", "mqueue", "mqueue", _folder(dev / "mqueue"))
    for name, target in {
        "ptmx": "pts/ptmx",
        "fd": "/proc/self/fd",
        "stdout": "fd/1",
        "stderr": "fd/2",
    }.items():
        (dev / name).symlink_to(target)


def _enter(root: Path) -> None:
    os.chdir(root)
    old = _folder(root / "run/old-root")
    subprocess.run(["pivot_root", ".", old.relative_to(root)], check=True)
    os.chroot(".")
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/run/old-root"], check=True)
    _mount("--make-rshared", "/")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
