"""Send a small message to a URL, as webhooks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from .client import UrlClient
from .errors import RequestFailed

BODY_BYTES = 1024  # of the answer that are kept


@dataclass(frozen=True)
class Answer:
    """The answer to a message: its status, its headers (names in small letters), the start of its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def post(client: UrlClient, url: str, content: bytes, headers: Mapping[str, str], seconds: float) -> Answer:
    """POST a message and return the answer, whatever its status is. No redirect is followed, nothing is tried again.

    Raises:
        RefusedUrl: the rules of the client do not allow the URL.
        RequestFailed: there was no answer within `seconds`.
    """
    try:
        async with asyncio.timeout(seconds), client.request("POST", url, headers, lambda: content) as response:
            return Answer(response.status, response.headers, await _start(response.body))
    except TimeoutError as error:
        raise RequestFailed(f"the server of the URL did not answer within {seconds:g} s", transient=True) from error


async def _start(body: AsyncIterator[bytes]) -> bytes:
    start = b""
    async for block in body:
        start += block
        if len(start) >= BODY_BYTES:
            break
    return start[:BODY_BYTES]
