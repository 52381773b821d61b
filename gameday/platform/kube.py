"""A thin async Kubernetes client: plain dicts over the official client's auth and transport."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gameday.platform import answers, credentials, fence
from gameday.platform.apiserver import ApiServer
from gameday.platform.errors import ApiError, BadName, ConfigError, NoCredentials, NotServed, not_found
from gameday.platform.exec import Exec
from gameday.platform.kubeconfig import contexts, current_context, existing, unfit, unfit_proxy
from gameday.platform.objects import Object, Ref, Resource, field_selector, url_path, version_path
from gameday.platform.on_demand import import_on_demand
from gameday.platform.one_cluster import OneCluster
from gameday.platform.resources import (
    BUDGETS,
    CONFIG_MAPS,
    CRDS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SIGNING_REQUESTS,
)

PAGE = 500  # objects asked for at once; kubectl's chunk size
WATCH_SECONDS = 290  # the server ends a watch then, and it is taken up again
_KNOWN = {
    (r.api_version, r.kind): r
    for r in (NODES, PODS, NAMESPACES, CONFIG_MAPS, EVENTS, LEASES, BUDGETS, CRDS, SIGNING_REQUESTS)
}
LOG_PATIENCE = 0.5  # seconds that a log is asked for again
PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Kube(ApiServer):
    """One cluster. All methods raise ApiError (it said no) or Unreachable (nobody answered).

    An answer is checked against what was asked: what is about another object is Unreachable's WrongAnswer.
    """

    def __init__(
        self,
        api: Any,
        context: str,
        credentials: credentials.Credentials | None = None,
        patience: float = 5.0,
        *,
        for_children: OneCluster | None = None,
    ) -> None:
        """`for_children`: how programs that are started for this cluster are told of it; None: not at all."""
        super().__init__(api, credentials, patience)
        self._discovered: dict[str, dict[str, Resource]] = {}
        self.context, self.for_children = context, for_children
        self.manager = "gameday"  # who managedFields say made our changes

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            if self.for_children is not None:
                self.for_children.remove()

    def write_as(self, manager: str) -> None:
        """Make every change from now on as this field manager."""
        self.manager = manager

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | str | None = None,
        context: str | None = None,
        *,
        patience: float = 5.0,
        shared: bool = True,
    ) -> Kube:
        """Connect as kubectl does: the given file, $KUBECONFIG, ~/.kube/config, then the pod's own account.

        Nothing is sent yet. With `shared` programs that are started for this cluster are told of it.
        Raises ConfigError when there is no usable configuration.
        """
        import_on_demand("kubernetes")
        import_on_demand("kubernetes.aio")
        from kubernetes.aio.client import ApiClient, Configuration
        from kubernetes.aio.config import (
            ConfigException,
            load_incluster_config,
            load_kube_config,
        )

        configuration = Configuration()
        configuration.connection_pool_maxsize = (
            200  # watches hold a connection each; aiohttp's 100 is too few
        )
        configuration.trace_configs = [fence.tracing()]
        configuration.client_session_kwargs = {"trust_env": False}  # see environment_proxy
        files = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        found = existing(files)
        paths = ":".join(map(str, found))
        try:
            if found:
                chosen = context or current_context(files)
                loading = load_kube_config(paths, chosen, configuration, persist_config=False)
                loader = await credentials.logged_in(loading)
                name = loader.current_context["name"]
                if proxy := unfit_proxy(configuration.proxy):
                    raise ConfigError(f"context {name!r} cannot be used ({files}): {proxy}")

                children = OneCluster(loader)

                async def read_file() -> Any:
                    fresh = Configuration()
                    again = await load_kube_config(paths, name, fresh, persist_config=False)
                    if fresh.host == configuration.host:
                        children.log_in_as(again)
                    return fresh

                login = credentials.Credentials(configuration, loader, read_file)
                told = children if shared else None
                return cls(ApiClient(configuration), name, login, patience, for_children=told)
            if kubeconfig or context:
                raise ConfigError(f"no kubeconfig at {files}: name one with --kubeconfig or $KUBECONFIG")
            load_incluster_config(client_configuration=configuration)

            async def read_pod() -> Any:
                fresh = Configuration()
                load_incluster_config(client_configuration=fresh)
                return fresh

            login = credentials.Credentials(configuration, None, read_pod)
            return cls(ApiClient(configuration), "in-cluster", login, patience)
        except NoCredentials as error:
            raise ConfigError(str(error)) from error
        except ConfigException as error:
            if not found:
                raise ConfigError(
                    f"no kubeconfig at {files} and not in a pod: name one with --kubeconfig or $KUBECONFIG, "
                    "or start a sandbox: gameday sandbox up (`run` and `plan` have --sandbox)"
                ) from error
            known = ", ".join(contexts(files)) or "none"
            what = f"context {context!r} cannot be used" if context else "the kubeconfig cannot be used"
            why = unfit(files, context) or error
            raise ConfigError(f"{what} ({files}): {why} (contexts for --context: {known})") from error

    def environment(self) -> dict[str, str]:
        """The environment in which a program, started now, talks to this cluster and no other.

        Nothing for a pod's own account, which programs find by themselves. Raises PlatformError.
        """
        return {} if self.for_children is None else self.for_children.environment()

    # -- discovery -----------------------------------------------------------------------------

    async def resource(self, api_version: str, kind: str) -> Resource:
        """How the cluster serves a kind. Raises NotServed where it does not (a CRD is missing)."""
        if (api_version, kind) in _KNOWN:
            return _KNOWN[api_version, kind]
        kinds = self._discovered.get(api_version)
        if kinds is None or kind not in kinds:
            path = version_path(api_version)
            listed = await self.ask("GET", path, verb="discover", what=api_version)
            served = answers.resources(listed, self.asked("discover", api_version))
            kinds = {r["kind"]: Resource(api_version, r["kind"], r["name"], r["namespaced"]) for r in served}
            self._discovered[api_version] = kinds
        if kind not in kinds:
            raise NotServed("find", kind, kind, api_version)
        return kinds[kind]

    async def served(self, ref: Ref) -> Ref:
        """The reference in a version that the cluster serves: its own, else another of its group.

        An object is the same in all of them, while its fields may have other names. Raises NotServed.
        """
        group, _, own = ref.api_version.rpartition("/")
        if not group or (ref.api_version, ref.kind) in _KNOWN:
            return ref
        there: list[str] = []
        with suppress(NotServed):
            found = await self.ask("GET", url_path("apis", group), verb="discover", what=group)
            there = answers.versions(found, self.asked("discover", group))
        for version in sorted(there, key=lambda v: v != own):
            self._discovered.pop(f"{group}/{version}", None)
            with suppress(NotServed):
                resource = await self.resource(f"{group}/{version}", ref.kind)
                return replace(ref, api_version=resource.api_version)
        raise NotServed("find", str(ref), ref.kind, f"any version of {group}")

    async def version(self) -> str:
        """The server's version, as v1.36.3."""
        found = await self.ask("GET", url_path("version"), verb="get", what="version")
        return answers.text(found, "gitVersion", self.asked("get", "version"))

    async def placed(self, ref: Ref) -> Ref:
        """The reference without its namespace where the cluster serves the kind outside of namespaces.

        An owner reference names none: the owner is in the namespace of what it owns, or in none at all.
        """
        resource = await self.resource(ref.api_version, ref.kind)
        return ref if resource.namespaced else replace(ref, namespace=None)

    async def _served(self, ref: Ref) -> Resource:
        """Raises BadName for a namespace where the kind has none: who allowed that meant something else."""
        resource = await self.resource(ref.api_version, ref.kind)
        if ref.namespace and not resource.namespaced:
            raise BadName(f"nothing was sent: {ref} can't be: objects of that kind are in no namespace")
        return resource

    async def _path(self, ref: Ref, subresource: str = "") -> str:
        return (await self._served(ref)).path(ref.namespace, ref.name, subresource)

    # -- reading -------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Object:
        """The object of that name; `not_found` when there is none, or when its UID is another one.

        The namespace of an owner reference is left out where the owner's kind has none (`placed`).
        """
        ref = await self.placed(ref)
        obj = await self.ask("GET", await self._path(ref), verb="get", what=str(ref))
        answers.check_object(obj, ref, self.asked("get", str(ref)))
        if ref.uid and obj["metadata"].get("uid") != ref.uid:
            body = json.dumps(
                {"reason": "NotFound", "message": "it was deleted, and another one has its name"}
            )
            raise ApiError("get", str(ref), 404, body.encode())
        return obj

    async def find(self, ref: Ref) -> Object | None:
        """As get, but None when there is none. Raises NotServed where its kind is not served."""
        try:
            return await self.get(ref)
        except ApiError as error:
            if not_found(error):
                return None
            raise

    async def find_readable(self, ref: Ref, blind: list[Ref]) -> Object | None:
        """As find, in any version that is served, but None also where it can't be read, which `blind` says.

        RBAC may not let us, and the cluster may serve the kind in no version any more.
        """
        try:
            try:
                return await self.find(ref)
            except NotServed:
                return await self.find(await self.served(ref))
        except ApiError as error:
            if error.status != 403 and not isinstance(error, NotServed):
                raise
            with suppress(ApiError):  # where kinds may not be discovered either
                ref = await self.placed(ref)
            blind.append(ref)
            return None

    async def each(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        """Every object, page by page, so that a large list is never whole in memory."""
        async for page in self.pages(resource, namespace, labels=labels, fields=fields):
            for item in page["items"]:
                yield item

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        """The list's pages as the server sent them, apiVersion and kind set on each item.

        A continue token that grew too old (410) starts again with the rest, as the server offers.
        """
        query: dict[str, Any] = {"limit": PAGE}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = field_selector(fields)
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        asked = self.asked("list", what)
        while True:
            try:
                page = await self.ask("GET", resource.path(namespace), verb="list", what=what, query=query)
            except answers.TooLarge:
                if query["limit"] == 1:
                    raise
                query["limit"] //= 2
                continue
            except ApiError as error:
                token = _continue_after_expiry(error) if "continue" in query else ""
                if not token or token == query["continue"]:
                    raise
                query["continue"] = token
                continue
            yield answers.page(page, resource, namespace, fields, asked)
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def page(self, resource: Resource, namespace: str | None = None, *, limit: int) -> Object:
        """The first objects of a list; metadata.remainingItemCount says how many more there are."""
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        path = resource.path(namespace)
        page = await self.ask("GET", path, verb="list", what=what, query={"limit": limit})
        return answers.page(page, resource, namespace, None, self.asked("list", what))

    async def allowed(self, attributes: Mapping[str, str]) -> bool:
        """Whether RBAC lets us do this, as `kubectl auth can-i`; `attributes` as in resourceAttributes."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
        }
        path = version_path("authorization.k8s.io/v1", "selfsubjectaccessreviews")
        review = await self.ask("POST", path, verb="review", what="own permissions", body=body)
        status = answers.part(review, "status", self.asked("review", "own permissions"))
        return status.get("allowed") is True

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> list[Object]:
        """Every object at once."""
        return [item async for item in self.each(resource, namespace, labels=labels, fields=fields)]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: Mapping[str, str] | None = None,
        version: str,
    ) -> AsyncGenerator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) from that resourceVersion until the server ends it.

        Raises ApiError 410 when the version is too old.
        """
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = field_selector(fields)
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        asked, name = self.asked("watch", what), (fields or {}).get("metadata.name")
        path, patience = resource.path(namespace), WATCH_SECONDS + 10
        async for event in self.lines(path, what=what, query=query, timeout=patience):
            kind, obj = event.get("type"), answers.part(event, "object", asked)
            if kind == "ERROR":
                code = obj.get("code")
                code = code if isinstance(code, int) else 500
                raise ApiError("watch", what, code, json.dumps(obj).encode())
            if kind == "BOOKMARK":  # holds a version, and names nothing
                answers.text(event, "object.metadata.resourceVersion", asked)
            else:
                answers.check_item(obj, resource, namespace, name, asked)
            yield str(kind), obj

    async def logs(
        self, ref: Ref, container: str, lines: int = 50, limit: int = 65536, timeout: float = 30.0
    ) -> str:
        """The last lines of a container's log, at most `limit` bytes.

        The API server waits long for a node whose network is gone: `timeout`, in seconds, need not. What
        it says of a node that it can't reach (500) looks like a failure of its own, and is hardly worth
        waiting for: one log of many is missing.
        """
        query = {"container": container, "tailLines": lines, "limitBytes": limit}
        path = await self._path(ref, "log")
        what = f"log of {ref}"
        raw = await self.request(
            "GET", path, verb="get", what=what, query=query, timeout=timeout, patience=LOG_PATIENCE
        )
        return raw.decode(errors="replace")

    async def exec(self, ref: Ref, container: str, command: Sequence[str], timeout: float = 30.0) -> Exec:
        """Run a command in a container of a pod to its end, without stdin, for at most `timeout` seconds.

        A command that fails is no error here: see `code`. ApiError says that it could not be run.
        """
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", c) for c in command]
        return await self.run(
            await self._path(ref, "exec"), query, f"container {container} of {ref}", timeout
        )

    async def dry_run(self, obj: Object) -> Object:
        """Have the server validate a creation, with its schema and webhooks, and keep nothing."""
        return await self._post(obj, {"dryRun": "All"})

    async def dry_patch(self, ref: Ref, body: Any, *, subresource: str = "") -> Object:
        """Have the server validate a JSON patch, with its schema and webhooks, and keep nothing."""
        return await self._patch(ref, body, "json", subresource, {"dryRun": "All"})

    async def _patch(
        self, ref: Ref, body: Any, kind: str, subresource: str, options: Mapping[str, str], manager: str = ""
    ) -> Object:
        query = {"fieldManager": manager or self.manager, **options}
        path = await self._path(ref, subresource)
        patched = await self.ask(
            "PATCH", path, verb="patch", what=str(ref), query=query, body=body, content_type=PATCH_TYPES[kind]
        )
        # A subresource may be of a kind of its own, as Scale is.
        answers.check_object(patched, ref, self.asked("patch", str(ref)), kind=not subresource)
        return patched

    async def _post(self, obj: Object, options: Mapping[str, str]) -> Object:
        ref = Ref.of(obj)
        resource = await self._served(ref)
        query = {"fieldManager": self.manager, "fieldValidation": "Strict", **options}
        path = resource.path(ref.namespace)
        created = await self.ask("POST", path, verb="create", what=str(ref), query=query, body=obj)
        answers.check_object(created, ref, self.asked("create", str(ref)))
        return created

    # -- writing: only the ledger and its store may call these ----------------------------------

    async def create(self, obj: Object) -> Object:
        """Create an object; the server refuses fields that it does not know."""
        return await self._post(obj, {})

    async def patch(
        self, ref: Ref, body: Any, kind: str = "json", *, subresource: str = "", manager: str = ""
    ) -> Object:
        """Patch an object; `kind`: json, merge, strategic, apply; `manager`, if not the client's."""
        force = {"force": "true"} if kind == "apply" else {}
        return await self._patch(ref, body, kind, subresource, force, manager)

    async def delete(
        self, ref: Ref, *, grace: int | None = None, propagation: str = "Background", version: str = ""
    ) -> bool:
        """Delete an object, by UID where the reference has one; False when it is already gone or another.

        With `version` only in that resourceVersion; ApiError 409 says that it has changed since.
        """
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        preconditions = {"uid": ref.uid, "resourceVersion": version}
        if held := {k: v for k, v in preconditions.items() if v}:
            body["preconditions"] = held
        try:
            found = await self.ask("DELETE", await self._path(ref), verb="delete", what=str(ref), body=body)
        except ApiError as error:
            if not_found(error) or (error.status == 409 and ref.uid and not version):
                return False
            raise
        answers.check_deleted(found, ref, self.asked("delete", str(ref)))
        return True

    async def evict(self, ref: Ref, *, grace: int | None = None) -> None:
        """Ask for a pod's eviction; ApiError 429 when a PodDisruptionBudget forbids it now."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if ref.uid:
            options["preconditions"] = {"uid": ref.uid}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": ref.name, "namespace": ref.namespace},
            "deleteOptions": options,
        }
        path = await self._path(ref, "eviction")
        told = await self.ask("POST", path, verb="evict", what=str(ref), body=body)
        answers.check_success(told, self.asked("evict", str(ref)))


def _continue_after_expiry(error: ApiError) -> str:
    """The token to go on with that a 410 on a list carries (metadata.continue of its Status)."""
    return error.continue_token if error.status == 410 else ""
