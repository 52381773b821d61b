"""Webhooks of controllers that run outside the cluster: found by address, not by a Service's name."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from gameday.platform.objects import Object
from tests.support.monitoring import free_port


@dataclass
class Webhooks:
    """A port on loopback, and its certificate in `directory`, under the names that controllers expect."""

    directory: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)

    def at(self, path: str) -> Object:
        """A `clientConfig` for one path of the server."""
        certificate = (self.directory / "tls.crt").read_bytes()
        url = f"https://127.0.0.1:{self.port}/{path.lstrip('/')}"
        return {"url": url, "caBundle": base64.b64encode(certificate).decode()}
