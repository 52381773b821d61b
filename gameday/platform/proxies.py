"""The proxy that the environment names for an address (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""

from __future__ import annotations

from typing import Any

from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL


def environment_proxy(url: URL | str) -> dict[str, Any]:
    """The options of aiohttp's requests to this address.

    As a session with `trust_env` finds it, which reads the environment and ~/.netrc for each request anew.
    """
    try:
        proxy, login = get_env_proxy_for_url(URL(url))
    except LookupError:
        return {}
    return {"proxy": proxy, "proxy_auth": login}
