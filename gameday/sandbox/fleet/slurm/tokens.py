"""JSON Web Tokens as Slurm's auth/jwt makes and checks them: HS256, with the user in `sun`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time


class Tokens:
    """Signs with a key that is new each time the sandbox starts."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, user: str = "root", lifespan: float = 7 * 86400) -> str:
        """A token for a user, good for so many seconds."""
        now = int(time.time())
        claims = {"exp": now + int(lifespan), "iat": now, "sun": user}
        body = ".".join(_encode(json.dumps(p).encode()) for p in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{body}.{self._signature(body)}"

    def accepts(self, token: str, user: str) -> bool:
        """Whether a token is ours, not expired, and this user's."""
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, self._signature(body)):
            return False
        part = body.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return bool(claims["exp"] > time.time() and claims["sun"] == user)

    def _signature(self, body: str) -> str:
        return _encode(hmac.new(self._key, body.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
