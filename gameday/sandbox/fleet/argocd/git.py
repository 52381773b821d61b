"""The repositories that the sandbox's Argo CD deploys from: a few commits each, written down in git.yaml."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

from gameday.platform.objects import Object
from gameday.sandbox.manifests import read

BRANCHES = ("", "HEAD", "main")


class GitError(Exception):
    """Manifests cannot be had; worded as Argo CD's repo server words it."""


@dataclass(frozen=True)
class Commit:
    """One commit and the objects in its one folder."""

    revision: str
    path: str
    objects: tuple[Object, ...]


@cache
def repositories() -> dict[str, tuple[Commit, ...]]:
    """Every repository by its URL, its newest commit first."""
    found: dict[str, list[Commit]] = {}
    for entry in read("git"):
        found.setdefault(entry["repo"], []).append(
            Commit(entry["revision"], entry["path"], tuple(_objects(entry)))
        )
    return {url: tuple(commits) for url, commits in found.items()}


@dataclass(frozen=True)
class Target:
    """What is to be deployed: a commit for each source. An application has one `source`, or `sources`."""

    sources: tuple[Object, ...]
    commits: tuple[Commit, ...]
    several: bool

    @property
    def revision(self) -> Object:
        """As status.sync, history and syncResult tell it: `revision`, or `revisions`."""
        found = [c.revision for c in self.commits]
        return {"revisions": found} if self.several else {"revision": found[0]}

    @property
    def source(self) -> Object:
        return {"sources": list(self.sources)} if self.several else {"source": self.sources[0]}

    @property
    def words(self) -> str:
        return ",".join(c.revision for c in self.commits)


def target(spec: Object, sync: Object | None = None) -> Target:
    """What an application's spec means now, or what one sync operation of it means. Raises GitError."""
    wanted = sync or {}
    several = bool(wanted.get("sources") or (not wanted.get("source") and spec.get("sources")))
    if several:
        sources = wanted.get("sources") or spec["sources"]
        revisions = wanted.get("revisions") or [""] * len(sources)
    else:
        sources, revisions = [wanted.get("source") or spec["source"]], [wanted.get("revision", "")]
    commits = tuple(_checkout(s, r) for s, r in zip(sources, revisions, strict=True))
    return Target(tuple(sources), commits, several)


def _checkout(source: Object, revision: str) -> Commit:
    """The commit that a source names, or the one with that revision."""
    commits = repositories().get(source["repoURL"])
    if commits is None:
        raise GitError(
            f"failed to list refs: repository not found: {source['repoURL']} "
            "(authentication required or no such repository)"
        )
    wanted = revision or source.get("targetRevision", "")
    if wanted in BRANCHES:
        found = commits[0]
    else:
        matching = [c for c in commits if len(wanted) >= 7 and c.revision.startswith(wanted)]
        if not matching:
            raise GitError(f"unable to resolve '{wanted}' to a commit SHA")
        found = matching[0]
    if source.get("path", ".") != found.path:
        raise GitError(f"{source.get('path', '.')}: app path does not exist")
    return found


def manifests(wanted: Target, application: Object) -> list[Object]:
    """The objects as they are for one application: with its namespace and its tracking annotation."""
    space = application["spec"]["destination"].get("namespace", "")
    made = []
    for each in (o for c in wanted.commits for o in c.objects):
        obj = copy.deepcopy(each)
        meta = obj["metadata"]
        meta.setdefault("namespace", space)
        notes = meta.setdefault("annotations", {})
        notes[TRACKING] = tracking_id(application, obj)
        made.append(obj)
    return made


TRACKING = "argocd.argoproj.io/tracking-id"


def tracking_id(application: Object, obj: Object) -> str:
    """APPLICATION:GROUP/KIND:NAMESPACE/NAME, as Argo CD's annotation tracking writes it."""
    meta, group = obj["metadata"], obj["apiVersion"].rpartition("/")[0]
    return f"{application['metadata']['name']}:{group}/{obj['kind']}:{meta['namespace']}/{meta['name']}"


def _objects(entry: Object) -> list[Object]:
    """What the entry lists itself, and what it takes from the sandbox's other manifests, with changes."""
    objects = list(entry.get("objects") or ())
    changes = entry.get("changes") or {}
    for taken in entry.get("from") or ():
        file, kind, namespace, name = taken.split("/")
        objects += [
            _merged(o, changes.get(f"{kind}/{name}"))
            for o in read(file)
            if (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) == (kind, namespace, name)
        ]
    return [{k: v for k, v in o.items() if k not in ("status", "operation")} for o in objects]


def _merged(base: Any, change: Any) -> Any:
    """`base` with a change put over it; items of lists are told apart by their names."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {k: _merged(base.get(k), v) for k, v in change.items()}
    if isinstance(base, list) and isinstance(change, list):
        by_name = {c["name"]: c for c in change}
        return [_merged(b, by_name.get(b["name"])) for b in base]
    return base if change is None else change
