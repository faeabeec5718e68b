"""HTTP requests to the gateway's `/v1`: the key, repetitions, and calls that another thread can cancel."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from . import _http
from ._errors import Cancelled, ServerError, Unavailable
from ._http import MultipartForm, OnProgress

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_MAX_REPEAT_PAUSE = 60.0

T = TypeVar("T")


class Call:
    """One call of this client. `cancel` ends it from another thread: its connection is closed, its pauses end."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._socket: socket.socket | None = None

    def cancel(self) -> None:
        """End the call with Cancelled."""
        self._cancelled.set()
        _shut(self._socket)

    def use(self, connected: socket.socket) -> None:
        """Make this the connection that `cancel` closes."""
        self._socket = connected
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait. Raises Cancelled."""
        if self._cancelled.wait(seconds):
            self.check()

    def check(self) -> None:
        """Return if the call may go on. Raises Cancelled."""
        if self._cancelled.is_set():
            _shut(self._socket)
            raise Cancelled("the call was cancelled")


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)  # set by the asynchronous client


class Transport:
    """Sends requests to one gateway. It has no state that threads could share by accident.

    Args:
        url: `http://host:port`, or https, with the path of a proxy if there is one.
        key: the API key; "" for a service without keys.
        timeout: seconds without a byte after which a request has failed.
        retries: how many times a request is repeated that did not reach the server, or was answered with 503.

    Raises:
        ValueError: an invalid value.
    """

    def __init__(self, url: str, key: str, timeout: float, retries: int) -> None:
        _http.check_url(url)
        if not timeout > 0 or retries < 0:
            raise ValueError(f"a positive timeout and no negative retries expected, got {timeout} and {retries}")
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self._key = key

    def repeated(
        self, call: Callable[[], T], *, progressed: Callable[[], object] = lambda: None, only_rejected: bool = False
    ) -> T:
        """Return what `call` returns; repeat it while the service is unavailable, up to `retries` times in a row.

        Args:
            progressed: a value that changes where the last attempt made progress, which gives all retries back.
            only_rejected: do not repeat what the service may have done although its response was lost.
        """
        left, before = self.retries, progressed()
        while True:
            try:
                return call()
            except Unavailable as error:
                current().check()
                now = progressed()
                left = self.retries if now != before else left
                before = now
                if error.code != 503 or not left or (only_rejected and not error.error_code):
                    raise
                left -= 1
                current().pause(min(error.retry_after, _MAX_REPEAT_PAUSE))

    def json(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401
        """Return the JSON of a response; None of one without a body. Repeats. Raises AvatarClientError."""
        return self.repeated(lambda: self._json(method, path, headers or {}))

    def submit(
        self,
        path: str,
        form: MultipartForm,
        headers: Mapping[str, str],
        on_progress: OnProgress,
        *,
        only_rejected: bool = False,
    ) -> Any:  # noqa: ANN401
        """Post a form and return the JSON of the response. Repeats. Raises AvatarClientError, OSError."""

        def post() -> Any:  # noqa: ANN401
            with self._connected(self.url) as connection:
                response = _http.exchange(
                    connection, self._path(path), form, self.timeout, on_progress, {**self._key_header(), **headers}
                )
                return _content(response)

        return self.repeated(post, only_rejected=only_rejected)

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[tuple[http.client.HTTPResponse, Connected]]:
        """Yield a response and its connection; redirects are followed, without the key. Raises AvatarClientError."""
        url, sent = self.url + path, {**self._key_header(), **headers}
        for _ in range(_MAX_REDIRECTS + 1):
            with self._connected(url) as connection:
                connected = Connected(connection)
                parts = urlsplit(url)
                target = parts.path + (f"?{parts.query}" if parts.query else "")
                with closing(connected.request("GET", target, sent)) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        if response.status >= 400:
                            raise _http.refusal(response)
                        with _failures(url):
                            yield response, connected
                        return
            url, sent = urljoin(url, location), dict(headers)
        raise ServerError(f"{self.url} redirects more than {_MAX_REDIRECTS} times")

    def _json(self, method: str, path: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401
        with self._connected(self.url) as connection:
            response = Connected(connection).request(method, self._path(path), {**self._key_header(), **headers})
            return _content(response)

    def _path(self, path: str) -> str:
        return urlsplit(self.url).path + path

    def _key_header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    @contextmanager
    def _connected(self, url: str) -> Iterator[http.client.HTTPConnection]:
        call = current()
        call.check()
        try:
            with closing(_http.connect(url)) as connection:
                connection.sock.settimeout(self.timeout)
                call.use(connection.sock)
                yield connection
        except Unavailable:
            call.check()  # then that is the reason
            raise


class Connected:
    """A connection while a request uses it."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection, self._socket = connection, connection.sock

    def request(self, method: str, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Send a request without a body, and return the start of the response. Raises Unavailable."""
        with _failures(f"{self._connection.host}:{self._connection.port}"):
            self._connection.request(method, path, headers={**headers, "Connection": "close"})
            return self._connection.getresponse()

    def silence(self, seconds: float) -> None:
        """Let the next read fail after this time without a byte."""
        self._socket.settimeout(max(0.001, seconds))


@contextmanager
def _failures(where: str) -> Iterator[None]:
    """Turn the failures of a connection into Unavailable."""
    try:
        yield
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _http.no_response(where, error) from error


def current() -> Call:
    """Return the call of this thread of execution; one that nobody cancels, outside of the asynchronous client."""
    return CURRENT.get() or Call()


def left_of(deadline: float | None, most: float) -> float:
    """Return the seconds until a deadline of the monotonic clock, at most `most`."""
    return most if deadline is None else min(most, deadline - time.monotonic())


def _content(response: http.client.HTTPResponse) -> Any:  # noqa: ANN401
    with closing(response), _failures("the service"):
        if response.status >= 300:
            raise _http.refusal(response)
        body = response.read()
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError as error:
        raise ServerError("the response is not JSON; is this the gateway's URL?") from error


def _shut(connected: socket.socket | None) -> None:
    if connected is not None:
        try:
            connected.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed already
            return
