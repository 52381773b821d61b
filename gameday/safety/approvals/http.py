"""One question over HTTP to a system that knows of approvals, answered with JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gameday.masking import keep_sent
from gameday.platform import answers
from gameday.platform.errors import PlatformError, without_frames

WITHIN = 10.0  # seconds
LONGEST = 2**20  # bytes of an answer


class NotAsked(PlatformError):
    """A source of approvals could not be asked: nobody knows whether somebody approved there."""


async def ask(
    method: str,
    url: str,
    what: str,
    *,
    headers: Mapping[str, str],
    body: Any = None,
    query: Mapping[str, str] | None = None,
) -> Any:
    """The JSON of an answer with 200, None for 202 and 204. Raises NotAsked. Redirects are not followed."""
    import aiohttp

    keep_sent(headers)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN), trust_env=True) as session,
            session.request(
                method, url, headers=headers, json=body, params=query, allow_redirects=False
            ) as answer,
        ):
            if answer.status in (202, 204):
                return None
            if answer.status != 200:
                raise NotAsked(f"{what} answered {answer.status}")
            return json.loads(await answers.read(answer.content.iter_any(), f"ask {what}", LONGEST))
    except answers.TooLarge as error:
        raise NotAsked(f"{what} answered with more than {LONGEST} bytes") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise NotAsked(f"{what} did not answer: {why}") from without_frames(error)
    except (ValueError, RecursionError) as error:
        raise NotAsked(f"{what} answered with something that is not JSON") from error
