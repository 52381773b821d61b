"""Where Prometheus is and what its requests carry, from `spec.target.prometheus` and the command line.

What is secret is read from the environment or a file when the connection is made, again when the server
refuses it (tokens in files are renewed while a run goes on), and masked from then on.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gameday.experiment.model import PrometheusAccess, SecretVariable
from gameday.masking import keep_secret, names_secret
from gameday.platform.errors import ConfigError
from gameday.platform.prometheus.client import Prometheus
from gameday.platform.prometheus.errors import TOKEN_ENV

BLOCK = "spec.target.prometheus"
LARGEST = 64 * 1024  # bytes of a file that holds a secret

Headers = dict[str, str]


def merged(file: PrometheusAccess | None, flags: dict[str, Any]) -> PrometheusAccess | None:
    """The access of the file with what flags say in its place; headers by name. None for no address.

    Raises ConfigError for a flag that means nothing. The environment's token goes to an address that
    was given beside it, never to one that a file names: the file may be somebody else's.
    """
    known = file.model_dump(by_alias=True, exclude_unset=True) if file else {}
    headers = known.get("headers", {}) | flags.get("headers", {})
    if flags.get("headers") and "rulesUrl" in known:
        text = f"headers of the command line would go to {known['rulesUrl']}, which the file names"
        raise ConfigError(f"{BLOCK}: {text}: name headers in the file, or leave rulesUrl out")
    ours = "url" in flags and not known.keys() & {"token", "rulesUrl"}
    if ours and os.environ.get(TOKEN_ENV, "").strip() and not _logs_in(headers):
        known["token"] = {"secretFrom": {"env": TOKEN_ENV}}
    try:
        access = PrometheusAccess.model_validate(known | flags | {"headers": headers}, by_alias=True)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, error["loc"]))
        why = error.get("ctx", {}).get("error") or error["msg"]
        raise ConfigError(f"the access to Prometheus: {where}: {why}") from None
    return access if access.url else None


def _logs_in(headers: dict[str, Any]) -> bool:
    return any(name.lower() == "authorization" for name in headers)


def client(access: PrometheusAccess, folder: Path) -> Prometheus:
    """A client of that access. Relative paths start at `folder`. Raises ConfigError."""
    return Prometheus(
        access.url or "",
        headers=_secrets(access, folder),
        tls=_tls(access, folder),
        rules_url=access.rules_url or "",
    )


def _secrets(access: PrometheusAccess, folder: Path) -> Callable[[], Headers]:
    def read() -> Headers:
        headers = {
            name: _value(name, value, folder) if isinstance(value, SecretVariable) else value
            for name, value in access.headers.items()
        }
        for name, value in access.headers.items():
            if isinstance(value, str) and names_secret(name):
                keep_secret(name, value)
        if access.token is not None:
            headers["Authorization"] = f"Bearer {_value('token', access.token, folder)}"
        return headers

    return read


def _value(name: str, secret: SecretVariable, folder: Path) -> str:
    """A secret's value, masked from now on."""
    source = secret.secret_from
    if source.env is not None:
        where, value = f"${source.env}", os.environ.get(source.env, "").strip()
    else:
        path = folder / (source.file or "")
        where = str(path)
        try:
            with path.open("rb") as file:
                value = file.read(LARGEST).decode().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise ConfigError(f"{BLOCK}: {name} from {path} can't be read: {why}") from None
    if not value or not value.isprintable():
        wrong = "holds more than one line" if value else "is empty, or not set"
        raise ConfigError(f"{BLOCK}: {name} from {where} {wrong}")
    keep_secret(name, value)
    return value


def _tls(access: PrometheusAccess, folder: Path) -> ssl.SSLContext | None:
    """The CA that is believed, in place of the system's, and the certificate that is shown."""
    if access.ca_file is None and access.cert_file is None:
        return None
    ca, cert, key = (
        str(folder / name) if name else None for name in (access.ca_file, access.cert_file, access.key_file)
    )
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key, password=lambda: "")  # else OpenSSL asks at the terminal
    except (OSError, ValueError) as error:
        files = ", ".join(name for name in (ca, cert, key) if name)
        raise ConfigError(f"{BLOCK}: {files}: {getattr(error, 'strerror', None) or error}") from None
    return context
