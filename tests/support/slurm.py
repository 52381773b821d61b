"""Starts a real Slurm: munged, slurmctld, one slurmd for each node, slurmrestd with JSON Web Tokens.

Two versions, both Debian's packages: this machine's own (22.05 on Debian 12: slurmrestd only reads, scontrol
has no JSON) and a newer one in a root directory of its own, which `tests/support/slurm_root.py` makes.
Several slurmd on one machine, each with a port and a folder, need only `-N`. Everything runs as root, since
slurmd starts jobs as their users; only slurmrestd refuses to.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import slurm_root
from tests.support.children import Child
from tests.support.polling import until

VERSIONS = ("this machine's", "newer")
NODES = ("gpu-0", "gpu-1", "gpu-2", "bare-1")  # three that Kubernetes knows too, and one of Slurm's own
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmrestd", "scontrol")
NOBODY = "65534"
CREDENTIALS_LAST = 5  # seconds; also how long a requeued job waits before it may start


@dataclass
class RealSlurm:
    """A cluster that is up. `environment` is what gameday needs to reach it, by url or by scontrol here."""

    folder: Path
    root: Path | None
    url: str
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where slurmrestd listens too, in a folder that it may write to."""
        return self.folder / "run" / "slurmrestd.sock"

    @property
    def environment(self) -> dict[str, str]:
        """PATH finds the scontrol of this version first."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "SLURM_JWT": self.token(), "PATH": path}

    def token(self) -> str:
        return self("scontrol", "token", "username=root", "lifespan=3600").strip().removeprefix("SLURM_JWT=")

    def __call__(self, *command: str) -> str:
        """Run one of Slurm's programs and return what it prints."""
        env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        env.pop("SLURM_JWT", None)
        ended = subprocess.run(
            [*self.inside(), *command], env=env, cwd=self.folder, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def inside(self, user: str = "") -> list[str]:
        """What to put before a program's name: the way into the root of this version, and to another user.

        A process that changes its user no longer dies with its parent, unless that is said again.
        """
        way = [str(self.folder / "bin" / "inside")] if self.root else []
        other = ["setpriv", "--pdeathsig=KILL", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return [*way, *(other if user else [])]

    def node(self, name: str) -> str:
        """A node's state and reason, as `scontrol show node -o` says them."""
        line = self("scontrol", "-o", "show", "node", name)
        state = line.split(" State=")[1].split()[0]
        reason = line.partition(" Reason=")[2].partition(" [")[0]
        return f"{state.rstrip('*').replace('+NOT_RESPONDING', '')} {reason}".strip()

    def submit(self, name: str, *options: str, seconds: int = 600) -> int:
        """Submit a job that sleeps; returns its number."""
        log = str(self.folder / f"{name}.out")
        wrapped = [f"--job-name={name}", f"--output={log}", f"--wrap=sleep {seconds}", *options]
        return int(self("sbatch", "--parsable", "--requeue", *wrapped).strip())

    def job(self, number: int) -> dict[str, str]:
        """A job's fields, as `scontrol show job -o` prints them."""
        words = self("scontrol", "-o", "show", "job", str(number)).split()
        return dict(w.split("=", 1) for w in words if "=" in w)

    def until_running(self, number: int) -> None:
        until(lambda: self.job(number)["JobState"] == "RUNNING", f"job {number} runs", within=60)

    def stop(self, program: str) -> None:
        self.children.pop(program).terminate()

    def start(self, program: str) -> None:
        """Start one of the daemons, as `slurmctld` or `slurmd gpu-0`."""
        name, _, node = program.partition(" ")
        options = {
            "munged": ["--foreground", "--force", *_munge_files(self.folder)],
            "slurmctld": ["-D"],
            "slurmd": ["-D", "-N", node],
            "slurmrestd": ["-a", "rest_auth/jwt", "-s", self._plugins(), self.url[7:], f"unix:{self.socket}"],
        }[name]
        user = NOBODY if name == "slurmrestd" else ""
        # slurmrestd takes a token with each request, if it has one itself; to the others one means another
        # kind of authentication, and ours has one in its environment.
        token = "SLURM_JWT=daemon" if name == "slurmrestd" else "--unset=SLURM_JWT"
        command = ["env", token, f"SLURM_CONF={self.folder}/slurm.conf", "HOME=/tmp", *self.inside(user)]
        log = self.folder / "log" / f"{program.replace(' ', '-')}.log"
        self.children[program] = Child(program, [*command, name, *options], log)

    def _plugins(self) -> str:
        """Without those that need slurmdbd, which we don't run."""
        return "openapi/slurmctld" if self.root else "openapi/v0.0.36,openapi/v0.0.37,openapi/v0.0.38"


def missing() -> str:
    """Why no real Slurm can be started here; "" when it can."""
    if os.geteuid() != 0:
        return "a real Slurm is started as root"
    absent = [p for p in PROGRAMS if shutil.which(p) is None]
    return f"{', '.join(absent)} not installed: make slurm" if absent else ""


@contextmanager
def slurm(version: str, folder: Path) -> Iterator[RealSlurm]:
    """A cluster that is ready for jobs, all of it gone when the block ends."""
    if why := missing():
        pytest.skip(why)
    root = slurm_root.find() if version == "newer" else None
    if version == "newer" and root is None:
        pytest.skip("the newer Slurm is not installed: make slurm")
    running = RealSlurm(folder, root, f"http://127.0.0.1:{_free_port()}")
    with ExitStack() as stack:
        stack.callback(_end, running)
        _write(running)
        running.start("munged")
        until(lambda: (folder / "munge.sock").exists(), "munged is up")
        for program in ("slurmctld", "slurmrestd", *(f"slurmd {n}" for n in NODES)):
            running.start(program)
        until(lambda: _ready(running), "Slurm is ready", within=60)
        yield running


def _ready(running: RealSlurm) -> bool:
    for child in running.children.values():
        child.check()
    try:
        up = running("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES)
    except AssertionError:
        return False
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return up and probe.connect_ex((host, int(port))) == 0


def _end(running: RealSlurm) -> None:
    """Jobs first, since slurmd leaves them running."""
    if "slurmctld" in running.children:
        subprocess.run(
            [*running.inside(), "scancel", "--user=root"],
            env={**os.environ, "SLURM_CONF": str(running.folder / "slurm.conf")},
            capture_output=True,
            timeout=20,
        )
    for child in reversed(running.children.values()):
        child.terminate(within=5)
    if running.root is not None:  # where the folder was mounted
        with suppress(OSError):
            (running.root / str(running.folder).lstrip("/")).rmdir()


def _write(running: RealSlurm) -> None:
    folder = running.folder
    folder.chmod(0o755)  # slurmrestd runs as nobody, and reads the configuration
    for name in ("log", "state", "bin", *(f"spool-{n}" for n in NODES)):
        (folder / name).mkdir(parents=True)
    running.socket.parent.mkdir()
    running.socket.parent.chmod(0o777)
    for name, size in (("jwt.key", 32), ("munge.key", 128)):
        (folder / name).write_bytes(secrets.token_bytes(size))
        (folder / name).chmod(0o600)
    host = socket.gethostname()
    ports = {name: _free_port() for name in ("slurmctld", *NODES)}
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={ports['slurmctld']}",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge.sock,cred_expire={CREDENTIALS_LAST}",
        "AuthAltTypes=auth/jwt",
        f"AuthAltParameters=jwt_key={folder}/jwt.key",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "SelectType=select/cons_tres",
        "ReturnToService=1",  # a node that an admin took down stays down
        "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
        *(f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[n]} CPUs=1" for n in NODES),
        f"PartitionName=gpu Nodes={','.join(NODES)} Default=YES State=UP",
    ]
    (folder / "slurm.conf").write_text("\n".join([*lines, ""]))
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if running.root else "")
    if running.root:
        _enter_scripts(running)


def _enter_scripts(running: RealSlurm) -> None:
    """`inside`, which runs a program in the other root, with mounts that go with it; and its scontrol."""
    root, folder = running.root, running.folder
    assert root is not None
    (root / str(folder).lstrip("/")).mkdir(parents=True, exist_ok=True)
    inside = folder / "bin" / "inside"
    mounts = (
        f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev"
        f" && mount --bind {folder} {root}{folder}"
    )
    inside.write_text(
        "#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
        f'exec unshare --mount sh -c \'{mounts} && exec chroot "$@"\' sh {root} "$@"\n'
    )
    scontrol = folder / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\nexec {inside} scontrol "$@"\n')
    for script in (inside, scontrol):
        script.chmod(0o755)


def _munge_files(folder: Path) -> list[str]:
    files = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [f"--key-file={folder}/munge.key", *(f"--{k}={folder}/munge.{v}" for k, v in files.items())]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":  # for trying things: python -m tests.support.slurm FOLDER [newer]
    with slurm("newer" if sys.argv[2:] else VERSIONS[0], Path(sys.argv[1])) as up:
        print(json.dumps({"url": up.url, **up.environment}), flush=True)
        sys.stdin.read()
