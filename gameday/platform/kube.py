"""A thin async Kubernetes client: plain dicts over the official client's auth and transport."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from pydantic_core import from_json

from gameday.platform.errors import ApiError, ConfigError, Unreachable
from gameday.platform.exec import Exec, run_in_container
from gameday.platform.objects import Object, Ref, Resource
from gameday.platform.on_demand import import_on_demand
from gameday.platform.resources import BUDGETS, CONFIG_MAPS, CRDS, EVENTS, LEASES, NAMESPACES, NODES, PODS

PAGE = 500  # objects asked for at once; kubectl's chunk size
WATCH_SECONDS = 290  # the server ends a watch then, and it is taken up again
_KNOWN = {
    (r.api_version, r.kind): r for r in (NODES, PODS, NAMESPACES, CONFIG_MAPS, EVENTS, LEASES, BUDGETS, CRDS)
}
_RETRIED = frozenset({500, 502, 503, 504})  # on reads: the server is starting, stopping or overloaded
LOG_PATIENCE = 0.5  # seconds that a log is asked for again
PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Kube:
    """One cluster. All methods raise ApiError (it said no) or Unreachable (nobody answered)."""

    def __init__(self, api: Any, context: str, loader: Any = None, patience: float = 5.0) -> None:
        self._api = api
        self._loader = loader
        self._discovered: dict[str, dict[str, Resource]] = {}
        self.context = context
        self.kubeconfig = ""  # the files it was read from, as in $KUBECONFIG; "" in a pod
        self.manager = "gameday"  # who managedFields say made our changes
        self.patience = patience  # seconds that reads go on trying a server which does not answer

    @classmethod
    async def connect(cls, kubeconfig: Path | str | None = None, context: str | None = None) -> Kube:
        """Connect as kubectl does: the given file, $KUBECONFIG, ~/.kube/config, then the pod's own account.

        Nothing is sent yet. Raises ConfigError when there is no usable configuration.
        """
        import_on_demand("kubernetes")
        import_on_demand("kubernetes.aio")
        from kubernetes.aio.client import ApiClient, Configuration
        from kubernetes.aio.config import (
            ConfigException,
            kube_config,
            load_incluster_config,
            load_kube_config,
        )

        configuration = Configuration()
        configuration.connection_pool_maxsize = (
            200  # watches hold a connection each; aiohttp's 100 is too few
        )
        files = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        found = [f for f in files.split(":") if f and Path(f).expanduser().exists()]
        try:
            if found:
                loader = await load_kube_config(files, context, configuration, persist_config=False)
                client = cls(ApiClient(configuration), loader.current_context["name"], loader)
                client.kubeconfig = files
                return client
            if kubeconfig or context:
                raise ConfigError(f"no kubeconfig at {files}: name one with --kubeconfig or $KUBECONFIG")
            load_incluster_config(client_configuration=configuration)
            return cls(ApiClient(configuration), "in-cluster")
        except ConfigException as error:
            if not found:
                raise ConfigError(
                    f"no kubeconfig at {files} and not in a pod: name one with --kubeconfig or $KUBECONFIG, "
                    "or try the sandbox with --sandbox"
                ) from error
            known = ", ".join(sorted(c["name"] for c in kube_config.list_kube_config_contexts(files)[0]))
            what = f"context {context!r} cannot be used" if context else "the kubeconfig cannot be used"
            raise ConfigError(f"{what} ({files}): {error} (contexts there: {known or 'none'})") from error

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._api.configuration.host)

    @property
    def environment(self) -> dict[str, str]:
        """What other programs need in their environment to talk to this cluster and no other."""
        if not self.kubeconfig:
            return {}
        return {"KUBECONFIG": self.kubeconfig, "KUBERNETES_CONTEXT": self.context}

    async def close(self) -> None:
        await self._api.close()

    async def __aenter__(self) -> Kube:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- requests ------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        verb: str = "",
        what: str = "",
        query: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = 30.0,
        patience: float | None = None,
    ) -> bytes:
        """One request, answered with the raw body.

        Reads are tried again for `patience` seconds (by default the client's) while the server is away; a
        connection that was refused is tried again for every verb, since nothing was sent.
        """
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        delay = 0.1
        while True:
            try:
                response = await self._send(method, path, query, body, content_type, timeout)
                data: bytes = await response.read()
                if response.status < 400:
                    return data
                error = ApiError(verb or method, what or path, response.status, data, _retry_after(response))
                again = method == "GET" and response.status in _RETRIED
                again = again or (response.status == 429 and not path.endswith("/eviction"))
                if response.status == 401 and await self._new_credentials():
                    continue
                wait = error.retry_after or delay
                failure: Exception = error
            except (aiohttp.ClientError, OSError, TimeoutError) as exception:
                failure = Unreachable(
                    f"cannot {verb or method} {what or path}: {self.server} {_why(exception)}"
                )
                again = method == "GET" or isinstance(exception, aiohttp.ClientConnectorError)
                wait = delay
            if not again or time.monotonic() + wait > deadline:
                raise failure
            await asyncio.sleep(wait)
            delay = min(delay * 2, 1.0)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | Sequence[tuple[str, str]] | None,
        body: Any,
        content_type: str,
        timeout: float,
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "gameday"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self.server + path + ("?" + urlencode(query) if query else "")
        connect = aiohttp.ClientTimeout(total=timeout, connect=min(timeout, 5.0))
        response = await self._api.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=connect
        )
        return response.response

    async def _new_credentials(self) -> bool:
        """Ask the kubeconfig's exec plugin again: its tokens are shorter-lived than a long run."""
        if self._loader is None or not hasattr(self._loader, "exec_plugin_expiry"):
            return False
        before = self._loader.token
        await self._loader.load_from_exec_plugin()
        self._api.configuration.api_key["BearerToken"] = self._loader.token
        return bool(self._loader.token != before)

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        # Not json.loads, which takes twice as long: a list of 50,000 pods is 250 MB.
        return from_json(await self.request(method, path, **options))

    # -- discovery -----------------------------------------------------------------------------

    async def resource(self, api_version: str, kind: str) -> Resource:
        """How the cluster serves a kind. ApiError 404 says that it does not (a CRD is missing)."""
        if (api_version, kind) in _KNOWN:
            return _KNOWN[api_version, kind]
        kinds = self._discovered.get(api_version)
        if kinds is None or kind not in kinds:
            path = ("/apis/" if "/" in api_version else "/api/") + api_version
            listed = await self._json("GET", path, verb="discover", what=api_version)
            kinds = {
                r["kind"]: Resource(api_version, r["kind"], r["name"], r["namespaced"])
                for r in listed["resources"]
                if "/" not in r["name"]
            }
            self._discovered[api_version] = kinds
        if kind not in kinds:
            body = json.dumps(
                {"reason": "NotFound", "message": f"the cluster serves no {kind} in {api_version}"}
            )
            raise ApiError("find", kind, 404, body.encode())
        return kinds[kind]

    async def version(self) -> str:
        """The server's version, as v1.36.3."""
        return str((await self._json("GET", "/version", verb="get", what="version"))["gitVersion"])

    async def _path(self, ref: Ref, subresource: str = "") -> str:
        resource = await self.resource(ref.api_version, ref.kind)
        return resource.path(ref.namespace, ref.name, subresource)

    # -- reading -------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Object:
        """The object of that name; ApiError 404 when there is none, or when its UID is another one."""
        obj: Object = await self._json("GET", await self._path(ref), verb="get", what=str(ref))
        if ref.uid and obj["metadata"]["uid"] != ref.uid:
            body = json.dumps(
                {"reason": "NotFound", "message": "it was deleted, and another one has its name"}
            )
            raise ApiError("get", str(ref), 404, body.encode())
        return obj

    async def find(self, ref: Ref) -> Object | None:
        """As get, but None when there is none."""
        try:
            return await self.get(ref)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def each(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
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
        fields: str | None = None,
    ) -> AsyncIterator[Object]:
        """The list's pages as the server sent them, apiVersion and kind set on each item.

        A continue token that grew too old (410) starts again with the rest, as the server offers.
        """
        query: dict[str, Any] = {"limit": PAGE}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        while True:
            try:
                page = await self._json("GET", resource.path(namespace), verb="list", what=what, query=query)
            except ApiError as error:
                token = _continue_after_expiry(error) if "continue" in query else ""
                if not token:
                    raise
                query["continue"] = token
                continue
            for item in page["items"]:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield page
            query["continue"] = page["metadata"].get("continue")
            if not query["continue"]:
                return

    async def page(self, resource: Resource, namespace: str | None = None, *, limit: int) -> Object:
        """The first objects of a list; metadata.remainingItemCount says how many more there are."""
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        path = resource.path(namespace)
        page: Object = await self._json("GET", path, verb="list", what=what, query={"limit": limit})
        return page

    async def allowed(self, attributes: Mapping[str, str]) -> bool:
        """Whether RBAC lets us do this, as `kubectl auth can-i`; `attributes` as in resourceAttributes."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {k: v for k, v in attributes.items() if v}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = await self._json("POST", path, verb="review", what="own permissions", body=body)
        return bool(review["status"].get("allowed"))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> list[Object]:
        """Every object at once."""
        return [item async for item in self.each(resource, namespace, labels=labels, fields=fields)]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        version: str,
    ) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED | BOOKMARK, object) from that resourceVersion until the server ends it.

        Raises ApiError 410 when the version is too old.
        """
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        what = f"{resource.plural} in {namespace or 'all namespaces'}"
        try:
            path = resource.path(namespace)
            response = await self._send("GET", path, query, None, "application/json", WATCH_SECONDS + 10)
            async with response:
                if response.status >= 400:
                    raise ApiError(
                        "watch", what, response.status, await response.read(), _retry_after(response)
                    )
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError("watch", what, status.get("code", 500), json.dumps(status).encode())
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unreachable(f"cannot watch {what}: {self.server} {_why(error)}") from error

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
        path = await self._path(ref, "exec")
        headers = {"User-Agent": "gameday"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        tls = self._api.rest_client.ssl_context if self.server.startswith("https:") else True
        what = f"container {container} of {ref}"
        try:
            return await run_in_container(self.server + path, headers, tls, what, query, timeout)
        except ApiError as error:
            if error.reason:
                raise
            refused = error
        try:  # the refusal of a WebSocket has no text, but that of a plain request has
            await self.request("GET", path, verb="exec in", what=what, query=query, timeout=timeout)
        except ApiError as error:
            raise error if error.status == refused.status else refused from None
        raise refused

    async def dry_run(self, obj: Object) -> Object:
        """Have the server validate a creation, with its schema and webhooks, and keep nothing."""
        return await self._post(obj, {"dryRun": "All"})

    async def dry_patch(self, ref: Ref, body: Any, *, subresource: str = "") -> Object:
        """Have the server validate a JSON patch, with its schema and webhooks, and keep nothing."""
        return await self._patch(ref, body, "json", subresource, {"dryRun": "All"})

    async def _patch(
        self, ref: Ref, body: Any, kind: str, subresource: str, options: Mapping[str, str]
    ) -> Object:
        query = {"fieldManager": self.manager, **options}
        path = await self._path(ref, subresource)
        patched: Object = await self._json(
            "PATCH", path, verb="patch", what=str(ref), query=query, body=body, content_type=PATCH_TYPES[kind]
        )
        return patched

    async def _post(self, obj: Object, options: Mapping[str, str]) -> Object:
        ref = Ref.of(obj)
        resource = await self.resource(ref.api_version, ref.kind)
        query = {"fieldManager": self.manager, "fieldValidation": "Strict", **options}
        path = resource.path(ref.namespace)
        created: Object = await self._json("POST", path, verb="create", what=str(ref), query=query, body=obj)
        return created

    # -- writing: only the ledger and its store may call these ----------------------------------

    async def create(self, obj: Object) -> Object:
        """Create an object; the server refuses fields that it does not know."""
        return await self._post(obj, {})

    async def patch(self, ref: Ref, body: Any, kind: str = "json", *, subresource: str = "") -> Object:
        """Patch an object; `kind` is json, merge, strategic or apply."""
        return await self._patch(ref, body, kind, subresource, {"force": "true"} if kind == "apply" else {})

    async def delete(self, ref: Ref, *, grace: int | None = None, propagation: str = "Background") -> bool:
        """Delete an object, by UID where the reference has one; False when it is already gone or another."""
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        if ref.uid:
            body["preconditions"] = {"uid": ref.uid}
        try:
            await self.request("DELETE", await self._path(ref), verb="delete", what=str(ref), body=body)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and ref.uid):
                return False
            raise
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
        await self.request("POST", path, verb="evict", what=str(ref), body=body)


def _retry_after(response: Any) -> float | None:
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None


def _continue_after_expiry(error: ApiError) -> str:
    """The token to go on with that a 410 on a list carries (metadata.continue of its Status)."""
    return error.continue_token if error.status == 410 else ""


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"has a certificate that is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"refused the connection ({error.os_error.strerror or error.os_error})"
    return f"broke off ({error or type(error).__name__})"
