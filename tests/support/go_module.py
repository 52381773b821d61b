"""Compiles other people's programs from their Go modules once per machine, because that takes minutes.

A test machine may have a module proxy and no container registry. Binaries lie outside the tree, in
``${XDG_CACHE_HOME:-~/.cache}/gameday/NAME-<hash of inputs>``: a clean checkout, another worktree or a second
CI run finds them again.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

INPUTS = ("go.mod", "go.sum", "main.go")


class BuildError(Exception):
    """Says what is missing and what to install."""


@dataclass(frozen=True)
class GoModule:
    """A folder with go.mod and go.sum, and the programs that are built by it.

    `programs` are names by which the binary of its main.go is called; a module whose programs are all
    `packages`, mains of the modules that it requires, has no main.go. A package is called as its last part.
    """

    name: str
    source: Path
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    title: str = ""  # for people, with how long it takes
    stamps: Mapping[str, str] = field(default_factory=dict)  # variables that the linker sets
    cgo: bool = False

    @property
    def folder(self) -> Path:
        content = b"\0".join((self.source / n).read_bytes() for n in INPUTS if (self.source / n).exists())
        return cache_root() / f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.programs, *(package.rpartition("/")[2] for package in self.packages))

    def program(self, name: str) -> Path | None:
        """One of the programs if they are built; builds nothing."""
        path = self.folder / name
        return path if path.exists() else None

    def build(self) -> Path:
        """The folder with the programs; compiles them when this source was never built here."""
        folder = self.folder
        if not self._built():
            with one_at_a_time(folder):
                if not self._built():
                    self._compile(folder)
        return folder

    def version(self, module: str) -> str:
        """The version of a module that go.mod requires; "go" is Go's own."""
        lines = (self.source / "go.mod").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.strip().startswith(f"{module} "))

    def file(self, module: str, path: str) -> Path:
        """A file of a module that go.mod requires, where Go has put it."""
        listed = self._go("list", "-m", "-f", "{{.Dir}}", module).strip()
        if not listed:  # not downloaded yet
            self._go("mod", "download", module)
            listed = self._go("list", "-m", "-f", "{{.Dir}}", module).strip()
        found = Path(listed) / path
        if not found.exists():
            raise BuildError(f"{module} {self.version(module)} holds no {path}: it has moved")
        return found

    def _built(self) -> bool:
        return all((self.folder / name).exists() for name in self.names)

    def _compile(self, folder: Path) -> None:
        compiler = go(f"Install Go {self.version('go')} or newer")
        staging = folder.with_name(f"{folder.name}.building")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        started = time.monotonic()
        say(self.name, f"building {self.title or self.name}")
        mains = [*(["."] if self.programs else []), *self.packages]
        ldflags = " ".join(["-s -w", *(f"-X {key}={value}" for key, value in self.stamps.items())])
        flags = ["-v", "-trimpath", "-buildvcs=false", f"-ldflags={ldflags}"]
        self._run_with_progress(
            [compiler, "build", *flags, "-o", f"{staging}/", *mains],
            total=self._package_count(mains),
            log=folder.with_name(f"{folder.name}.log"),
        )
        binary = self.version("module").rpartition("/")[2]
        for program in self.programs:
            (staging / program).symlink_to(binary)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
        say(self.name, f"built {folder} in {time.monotonic() - started:.0f} s")

    def _package_count(self, mains: list[str]) -> int:
        """How many packages there are to compile; downloads the modules on the way."""
        say(self.name, "downloading Go modules")
        return len(self._go("list", "-deps", *mains).split())

    def _go(self, *arguments: str) -> str:
        """What a command prints. Raises BuildError with its last words."""
        done = subprocess.run(
            [go(), *arguments],
            cwd=self.source,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"go {' '.join(arguments[:2])} failed in {self.source}:\n{tail(done.stderr)}")
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CGO_ENABLED": "1" if self.cgo else "0"}

    def _run_with_progress(self, command: list[str], *, total: int, log: Path) -> None:
        """`go build -v` names each package as it compiles it: the progress, and the log of a failure."""
        process = subprocess.Popen(
            command,
            cwd=self.source,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        every = 10 if sys.stderr.isatty() else 100
        with log.open("w") as written:
            for count, line in enumerate(process.stderr, start=1):
                written.write(line)
                if count % every == 0:
                    say(self.name, f"compiled {count} of at most {total} packages", again=True)
        if process.wait() != 0:
            raise BuildError(f"go build failed; its last lines (all of it: {log}):\n{tail(log.read_text())}")


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gameday"


def go(install: str = "Install Go") -> str:
    """Go's own path. Raises BuildError without it."""
    found = shutil.which("go")
    if found is None:
        raise BuildError(
            "Go is not installed, and the real control plane and controllers are compiled from their Go "
            f"modules. {install} (https://go.dev/doc/install) and put it on PATH; `make test` needs no Go."
        )
    return found


def module_folder(module: str) -> Path:
    """Where Go keeps MODULE@VERSION; downloads it."""
    command = [go(), "mod", "download", "-json", module]
    answer = subprocess.run(command, cwd=Path("/"), capture_output=True, text=True, check=False)
    try:
        return Path(json.loads(answer.stdout)["Dir"])
    except (ValueError, KeyError):
        raise BuildError(f"could not download {module}:\n{tail(answer.stdout + answer.stderr)}") from None


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Two builds side by side would take twice as long and write the same file: the second waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def say(who: str, message: str, *, again: bool = False) -> None:
    """A line of progress; `again` writes over the one before where a person looks on."""
    end = "\r" if again and sys.stderr.isatty() else "\n"
    print(f"{who}: {message}", end=end, file=sys.stderr, flush=True)


def print_built(*modules: GoModule) -> int:
    """Build modules one after the other, as a program does; the exit code."""
    try:
        for module in modules:
            print(module.build())
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
