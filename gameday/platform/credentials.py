"""New credentials when a server takes the old ones no more: they are shorter-lived than a long run.

An exec plugin is asked again, for a token or a client certificate, also once these ended by its own word; a
token in a kubeconfig, its tokenFile or a pod, and a certificate's file, are read again from there.

The protocol is https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from yaml import YAMLError

from gameday.experiment.text import shorten
from gameday.platform import child
from gameday.platform.errors import NoCredentials

Mark = tuple[str | None, str]  # a token, and a client certificate by its digest
WITHIN = 60.0  # seconds that a plugin may take; some ask a person
# What the library raises over a file, or the user's part of it, that is not as it has to be.
_UNFIT = (YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError)
_EXTENSION = "client.authentication.k8s.io/exec"
_CLUSTER = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
)


@dataclass(frozen=True)
class Login:
    """What an exec plugin gives: a token, a client certificate with its key (PEM), and when they end."""

    token: str = ""
    certificate: str = ""
    key: str = ""
    ends: float | None = None  # Unix seconds; None: when the server says so


class Credentials:
    """The token and the client certificate of one kubeconfig context, and whom to ask for others.

    `read_again` gives a fresh configuration, from where this one was read.
    """

    def __init__(
        self, configuration: Any, loader: Any = None, read_again: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self._configuration, self._loader = configuration, loader if _plugin(loader) is not None else None
        self._read_again = read_again
        self._ends = getattr(loader, "login", Login()).ends
        self._certificate = _digest(configuration)
        self.impersonated = impersonated(loader)
        self.ssl_context: ssl.SSLContext | None = None  # of a certificate that came later than the client's
        self._asking = asyncio.Lock()

    @property
    def token(self) -> str | None:
        """The value of the Authorization header, None for other ways to log in."""
        token: str | None = self._configuration.api_key.get("BearerToken")
        return token

    @property
    def mark(self) -> Mark:
        """Which credentials these are."""
        return self.token, self._certificate

    async def ready(self) -> Mark:
        """Credentials that are not known to have ended. Raises NoCredentials."""
        if self._ends is not None and time.time() >= self._ends:
            await self.renew(self.mark)
        return self.mark

    async def renew(self, refused: Mark) -> bool:
        """Whether there are credentials now that are not the refused ones. Raises NoCredentials.

        Requests that are refused together ask once.
        """
        async with self._asking:
            if self.mark == refused:
                await self._fetch()
        return self.mark != refused

    async def _fetch(self) -> None:
        if self._loader is not None:
            self._take_login(await ask(_plugin(self._loader), cluster_info(self._loader)))
        elif self._read_again is not None:
            self._take(await _read(self._read_again))

    def _set(self, token: str) -> None:
        self._configuration.api_key["BearerToken"] = f"Bearer {token}"

    def _take_login(self, login: Login) -> None:
        self._ends = login.ends
        if login.token:
            self._set(login.token)
        if login.certificate:
            self._take_certificate(*_files(login))

    def _take(self, fresh: Any) -> None:
        """The credentials of a configuration for the same server; another server's are none of ours."""
        if fresh.host != self._configuration.host:
            return
        if token := fresh.api_key.get("BearerToken"):
            self._configuration.api_key["BearerToken"] = token
            # The old hook would put the token back that its loader remembers.
            self._configuration.refresh_api_key_hook = fresh.refresh_api_key_hook
        if fresh.cert_file:
            self._take_certificate(fresh.cert_file, fresh.key_file)

    def _take_certificate(self, certificate: str, key: str) -> None:
        """Connections are made with it from now on: those that are open have the old one for good."""
        from kubernetes.aio.client.rest import RESTClientObject

        old, self._configuration.cert_file, self._configuration.key_file = self._certificate, certificate, key
        self._certificate = _digest(self._configuration)
        if self._certificate != old:
            self.ssl_context = RESTClientObject(self._configuration).ssl_context


def _digest(configuration: Any) -> str:
    """A client certificate by its content: its file may keep its name."""
    try:
        return hashlib.sha256(Path(configuration.cert_file or "").read_bytes()).hexdigest()
    except OSError:
        return ""


def _files(login: Login) -> tuple[str, str]:
    """A certificate and its key as files, for this user's eyes only; they go with the process."""
    from kubernetes.aio.config.kube_config import _create_temp_file_with_content

    return _create_temp_file_with_content(login.certificate), _create_temp_file_with_content(login.key)


async def _read(read_again: Callable[[], Awaitable[Any]]) -> Any:
    """The configuration as it is now. Raises NoCredentials: the file is being written, or gone."""
    from kubernetes.aio.config import ConfigException

    try:
        async with asyncio.timeout(WITHIN):
            return await read_again()
    except (ConfigException, *_UNFIT) as error:
        why = shorten(str(error), 300) or type(error).__name__
        raise NoCredentials(f"the credentials cannot be read again: {why}") from error


@cache
def _take_over() -> None:
    """Let the library's loader ask plugins as we do, and say why one failed; it offers no other way."""
    from kubernetes.aio.config import kube_config

    async def load(loader: Any) -> bool:
        loader.login = login = await ask(_plugin(loader), cluster_info(loader))
        if login.token:
            loader.token = f"Bearer {login.token}"
        if login.certificate:
            loader.cert_file, loader.key_file = _files(login)
        return True

    kube_config.KubeConfigLoader.load_from_exec_plugin = load
    kube_config.KubeConfigLoader._load_user_token = _load_token


def _load_token(loader: Any) -> bool:
    """A user's token as client-go takes it (transport/token_source.go): its file first, and stripped."""
    user = loader._user.value
    token = user.get("token") or ""
    if file := user.get("tokenFile"):
        path = Path(loader._get_base_path(loader._user.path), file)
        try:
            token = path.read_text().strip()
        except OSError as error:
            if not token:
                raise NoCredentials(f"the kubeconfig's tokenFile cannot be read: {error}") from error
    if token:
        loader.token = f"Bearer {token}"
    return bool(token)


async def logged_in(loading: Awaitable[Any]) -> Any:
    """The kubeconfig's loader, once it has loaded what its plugin gives.

    Raises NoCredentials, and the library's ConfigException for a file that is not as it has to be.
    """
    from kubernetes.aio.config import ConfigException

    _take_over()
    try:
        return await loading
    except _UNFIT as error:
        what = f"there is no {error}" if isinstance(error, KeyError) else shorten(str(error), 300)
        raise ConfigException(f"it is not as a kubeconfig has to be ({what})") from error


def cluster_info(loader: Any) -> dict[str, Any] | None:
    """What a plugin with `provideClusterInfo` hears of the cluster; None for one without.

    The fields of client-go's ConfigToExecCluster (k8s.io/client-go/tools/auth/exec), and the extension of the
    kubeconfig's cluster that is meant for plugins, as `config`.
    """
    if not _plugin(loader).safe_get("provideClusterInfo"):
        return None
    cluster = loader._cluster.value
    told = {key: cluster[key] for key in _CLUSTER if cluster.get(key) not in (None, "")}
    if (file := cluster.get("certificate-authority")) and "certificate-authority-data" not in told:
        path = Path(loader._get_base_path(loader._cluster.path), file)
        told["certificate-authority-data"] = base64.b64encode(path.read_bytes()).decode()
    for each in cluster.get("extensions") or ():
        if each.get("name") == _EXTENSION:
            told["config"] = each.get("extension")
    return told


def impersonated(loader: Any) -> list[tuple[str, str]]:
    """The headers by which a kubeconfig's user acts as another one; kubectl sends the same.

    Source: "User impersonation" in Kubernetes' reference on authentication, and clientcmd's AuthInfo.
    """
    node = getattr(loader, "_user", None)
    user = (node.value if node is not None else None) or {}
    headers = [("Impersonate-User", user.get("as")), ("Impersonate-Uid", user.get("as-uid"))]
    headers += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(key.lower(), safe='')}", value) for value in values]
    return [(name, str(value)) for name, value in headers if value]


def _plugin(loader: Any) -> Any:
    """The kubeconfig's `exec` section, None without one."""
    user = getattr(loader, "_user", None)
    return user["exec"] if user and "exec" in user else None


async def ask(plugin: Any, cluster: dict[str, Any] | None = None) -> Login:
    """Run an exec plugin to its end. Raises NoCredentials with what it said."""
    from kubernetes.aio.config import ConfigException

    name = plugin.safe_get("command")
    try:
        return _login(await _run(plugin, cluster))
    except TimeoutError:
        why = f"it did not end within {WITHIN:g} s"
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = shorten(str(error), 300) or type(error).__name__
    raise NoCredentials(
        f"the kubeconfig's plugin {name} gave nothing to log in with: {why}: log in by hand, then try again"
    )


async def _run(plugin: Any, cluster: dict[str, Any] | None) -> Any:
    """The status that a plugin answers with. Nothing that it started outlives it, or holds us up."""
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.exec_provider import ExecProvider

    provider = ExecProvider(plugin)
    if "/" in (
        program := provider.args[0]
    ):  # a path is from the kubeconfig's folder (client-go's ExecConfig)
        provider.args[0] = str(Path(plugin.path or "").absolute().parent / program)
    spec: dict[str, Any] = {"interactive": sys.stdout.isatty()}
    spec |= {"cluster": cluster} if cluster is not None else {}
    info = {"apiVersion": provider.api_version, "kind": "ExecCredential", "spec": spec}
    environment = {**provider.env, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    ended = await child.run(provider.args, WITHIN, None, environment)  # None: ours, since some ask a person
    if ended.code != 0:
        raise ConfigException(f"exit code {ended.code}: {ended.err.decode(errors='replace').strip()}")
    told = json.loads(ended.out)
    if told["apiVersion"] != provider.api_version or told["kind"] != "ExecCredential":
        raise ConfigException(f"it answered with {told['kind']} of {told['apiVersion']}")
    return told["status"]


def _login(status: Any) -> Login:
    """What a plugin gave. Raises ValueError where that is nothing to log in with."""
    token, ends = status.get("token"), status.get("expirationTimestamp")
    certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
    if bool(certificate) != bool(key):
        raise ValueError("its status holds a client certificate without its key, or a key alone")
    if not certificate and not (isinstance(token, str) and token and token.isprintable()):
        raise ValueError("its status holds no token and no client certificate")
    over = datetime.fromisoformat(str(ends)).timestamp() if ends else 0.0
    # What has ended when it is given says nothing: a clock is wrong, and asking again would be for ever.
    known = over if over > time.time() else None
    return Login(str(token or ""), str(certificate or ""), str(key or ""), known)
