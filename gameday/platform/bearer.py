"""Another identity at the same API server: a bearer token, fetched again when it is refused."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gameday.platform.credentials import Credentials

if TYPE_CHECKING:
    from gameday.platform.apiserver import ApiServer

Source = Callable[[], Awaitable[str]]


class BearerToken(Credentials):
    """A token from `source`, which raises PlatformError where it gives none."""

    def __init__(self, configuration: Any, source: Source) -> None:
        super().__init__(configuration)
        self._source = source

    async def _fetch(self) -> None:
        self._set(await self._source())


async def with_token(server: ApiServer, source: Source) -> tuple[ApiServer, BearerToken]:
    """The same API server, reached in the same way, with nothing but a token to log in with.

    A client certificate is left out: the API server would take it before any token. Raises PlatformError.
    """
    from kubernetes.aio.client import ApiClient

    from gameday.platform.apiserver import ApiServer

    configuration = copy.copy(server._api.configuration)
    configuration.api_key = {}
    configuration.cert_file = configuration.key_file = None
    configuration.username = configuration.password = configuration.access_token = None
    configuration.refresh_api_key_hook = None
    token = BearerToken(configuration, source)
    await token.renew(token.mark)
    return ApiServer(ApiClient(configuration), token, server.patience), token
