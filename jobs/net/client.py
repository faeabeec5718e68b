"""The HTTP client of this package: it resolves a host once per connection, checks the addresses, connects to them.

httpcore is used without httpx on top: no cookies, no proxies, no credentials of the environment, no decoding.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TypeVar

import httpcore
import httpx

from lipsync import __version__

from .addresses import UrlRules
from .errors import RefusedUrl, RequestFailed
from .network import GuardedNetwork, Resolve, SystemResolver
from .urls import parse_s3, parse_url

MAX_REDIRECTS = 3

_CONNECT_SECONDS = 10.0
_PAUSE_SECONDS = 30.0  # without a byte from, or to, the server
_CONNECTIONS = 100
_MAX_RETRY_PAUSE = 8.0
_HEADERS = {"User-Agent": f"talking-avatar/{__version__}", "Accept-Encoding": "identity"}
_TIMEOUTS = {"connect": _CONNECT_SECONDS, "read": _PAUSE_SECONDS, "write": _PAUSE_SECONDS, "pool": _PAUSE_SECONDS}

T = TypeVar("T")


@dataclass(frozen=True)
class Response:
    """The start of a response; `body` yields the rest. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


def check_status(status: int) -> None:
    """Raise RequestFailed unless a status is one of success."""
    if 200 <= status < 300:
        return
    try:
        answer = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        answer = str(status)
    if status >= 500 or status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT):
        raise RequestFailed(f"the server of the URL fails ({answer}); try again when it works", transient=True)
    raise RequestFailed(f"the server of the URL answered {answer}")


class UrlClient:
    """Requests to the URLs of callers. One is enough for a process; use it as an async context manager.

    Args:
        rules: where the URLs may lead.
        resolve: finds the addresses of a host; the system's resolver by default.
        context: the certificates that are trusted; by default those of SSL_CERT_FILE, else of certifi.
        retry_pause: seconds before the first retry; it doubles with every other one.
    """

    def __init__(
        self,
        rules: UrlRules,
        *,
        resolve: Resolve | None = None,
        context: ssl.SSLContext | None = None,
        retry_pause: float = 0.5,
    ) -> None:
        self.rules = rules
        self._resolver = SystemResolver()
        self._network = GuardedNetwork(rules, resolve or self._resolver)
        self._retry_pause = retry_pause
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context or httpx.create_ssl_context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=0,  # so that every request is checked, and none fails with an old connection
            network_backend=self._network,
        )

    async def __aenter__(self) -> UrlClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()
        self._resolver.close()

    async def check(self, url: str, s3: bool = False) -> None:
        """Check a URL before it is used, so that its caller learns at once that it is refused.

        The addresses are checked once more for every connection.

        Args:
            s3: whether `s3://` URLs of an allowed bucket will do too.

        Raises:
            RefusedUrl: the rules do not allow the URL.
            RequestFailed: its host is unknown.
        """
        if s3 and url.startswith("s3://"):
            parse_s3(url, self.rules)
            return
        target = parse_url(url, self.rules)
        await self._network.addresses(target.raw_host.decode(), _port(target))

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Callable[[], bytes | AsyncIterator[bytes]] | None = None,
        follow: Iterable[int] = (),
    ) -> AsyncIterator[Response]:
        """Send a request and yield its response. The deadline is up to the caller.

        Args:
            content: makes the body; it is called again after a redirect.
            follow: statuses of the redirects that are followed, at most three of them.

        Raises:
            RefusedUrl: the URL, or the one of a redirect, is not allowed.
            RequestFailed: there is no whole response.
        """
        target = parse_url(url, self.rules)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._send(method, target, headers, content() if content else None) as response:
                location = response.headers.get("location")
                if response.status not in follow or location is None:
                    yield response
                    return
            target = self._redirected(target, location)
        raise RefusedUrl(f"the URL is redirected more than {MAX_REDIRECTS} times")

    async def with_retries(self, call: Callable[[], Awaitable[T]], tries: int) -> T:
        """Call until it succeeds, fails for good, or has failed `tries` times."""
        pause = self._retry_pause
        while True:
            tries -= 1
            try:
                return await call()
            except RequestFailed as failure:
                if not failure.transient or tries <= 0:
                    raise
            await asyncio.sleep(min(pause, _MAX_RETRY_PAUSE) * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause *= 2

    @asynccontextmanager
    async def _send(
        self, method: str, target: httpx.URL, headers: Mapping[str, str], content: bytes | AsyncIterator[bytes] | None
    ) -> AsyncIterator[Response]:
        with _failures():
            async with self._pool.stream(
                method,
                httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path),
                headers=[("Host", target.netloc.decode()), *_HEADERS.items(), *headers.items()],
                content=content,
                extensions={"timeout": _TIMEOUTS},
            ) as response:
                fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                async with aclosing(_body(response)) as body:
                    yield Response(response.status, fields, body)

    def _redirected(self, target: httpx.URL, location: str) -> httpx.URL:
        try:
            following = target.join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise RefusedUrl("the URL is redirected to something that is no URL") from error
        if target.scheme == "https" and following.scheme != "https":
            raise RefusedUrl("the URL is redirected from https to another scheme")
        return parse_url(str(following), self.rules)


@contextmanager
def _failures() -> Iterator[None]:
    """Turn the errors of httpcore into RequestFailed."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise RequestFailed("the server of the URL does not answer in time", transient=True) from error
    except httpcore.ConnectError as error:
        if _has_cause(error, ssl.SSLError):
            raise RequestFailed("the server of the URL has no valid certificate for its host") from error
        raise RequestFailed("the server of the URL cannot be reached", transient=True) from error
    except httpcore.NetworkError as error:
        raise RequestFailed("the connection to the server of the URL was lost", transient=True) from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise RequestFailed("the server of the URL ended its response too early, or sent no HTTP", True) from error


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


async def _body(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for block in response.aiter_stream():
        yield block


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
