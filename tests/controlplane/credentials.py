"""Who may do what on the test control plane: tokens, kubeconfigs, the key that signs service accounts."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.children import ChildFailed

CONTEXT = "gameday-cluster"


@dataclass(frozen=True)
class User:
    """One line of the API server's token file, and the kubeconfig made of it."""

    name: str
    groups: str = ""
    kubeconfig: str = "kubeconfig"
    token: str = field(default_factory=lambda: secrets.token_hex(16))


def write_tokens(path: Path, users: list[User]) -> None:
    path.write_text("".join(f'{user.token},{user.name},{user.name},"{user.groups}"\n' for user in users))


def write_kubeconfig(path: Path, url: str, certificate: bytes, user: User) -> None:
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(certificate).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": user.name, "user": {"token": user.token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user.name}}],
        "current-context": CONTEXT,
    }
    path.write_text(json.dumps(config, indent=2))
    path.chmod(0o600)


def make_rsa_key(path: Path) -> None:
    """The key that signs service account tokens."""
    _openssl("genrsa", "-out", str(path), "2048")


def make_certificate(path: Path, key: Path, address: str) -> None:
    """An API server's certificate. Its own is of RSA, which takes a millisecond for each connection."""
    names = f"subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{address}"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key)]
    usage = "keyUsage=critical,digitalSignature,keyCertSign"
    out = ["-out", str(path), "-days", "365"]
    _openssl("req", "-x509", *curve, *out, "-subj", "/CN=kubernetes", "-addext", usage, "-addext", names)


def _openssl(*arguments: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ChildFailed("openssl is not installed: it makes the control plane's keys")
    subprocess.run([openssl, *arguments], check=True, capture_output=True)
