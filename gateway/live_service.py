"""State of the live sessions of a gateway: their places, what is remembered of kept faces, and their end at a stop."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from avatar.errors import Busy, ClientError, ShuttingDown
from avatar.load import wait_for
from avatar.resources.held import Held
from avatar.streams import cancel_and_wait
from jobs.quotas import UploadRates

from .authentication import Caller
from .codes import ErrorCode
from .errors import TooManyJobs
from .metrics import Metrics
from .settings import Settings

Transport = Literal["websocket", "webrtc"]
CLOSE_SECONDS = 3.0  # for running sessions to tell their callers that the gateway is being stopped
REMEMBERED = 1000  # kept faces of which the model's own id is remembered
RETRY_AFTER = 5


class LiveDisabled(ClientError):
    """The settings switch live sessions off."""

    status = 501
    code = ErrorCode.LIVE_DISABLED


class PreparedAvatars:
    """The ids by which the model `live` knows faces that were sent before, the least recently used one first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._ids: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def find(self, key: tuple[object, ...]) -> str | None:
        """Return the id under which a face with its options was prepared, if it is known."""
        if key in self._ids:
            self._ids.move_to_end(key)
        return self._ids.get(key)

    def add(self, key: tuple[object, ...], identity: str) -> None:
        """Remember an id."""
        self._ids[key] = identity
        self._ids.move_to_end(key)
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)

    def forget(self, key: tuple[object, ...]) -> None:
        """Forget an id that the model does not know any more."""
        self._ids.pop(key, None)


@dataclass(frozen=True)
class LivePeer:
    """A session over WebRTC, which outlives the request that has started it.

    Attributes:
        tenant: that may end it.
        gone: set when it has to end.
        ended: set when it holds no place any more.
    """

    tenant: str
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LiveService:
    """Admits live sessions, over WebSockets and WebRTC, and ends them when the gateway is being stopped.

    Attributes:
        prepared: what is remembered of kept faces.
        closing: set when the gateway is being stopped.
        peers: the sessions over WebRTC, by their ids.
        tasks: those that carry them.
    """

    def __init__(self, settings: Settings, metrics: Metrics, rates: UploadRates) -> None:
        self._most, self._per_client = settings.live_sockets, max(1, settings.live_sockets // 2)
        self._metrics = metrics
        self._held = Held()
        self._untold, self._all_told = 0, asyncio.Event()
        self._rates = rates
        self.prepared, self.closing = PreparedAvatars(), asyncio.Event()
        self.peers: dict[str, LivePeer] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """Number of sessions."""
        return self._held.total

    def check_enabled(self) -> None:
        """Return if there are live sessions at all. Raises LiveDisabled."""
        if not self._most:
            raise LiveDisabled("this service has no live sessions (AVATAR_LIVE_SOCKETS is 0)")

    @contextmanager
    def hold(self, client: str, transport: Transport, *, draining: bool) -> Iterator[None]:
        """Count a session of this client within the block.

        Raises:
            LiveDisabled: there are none.
            ShuttingDown: the gateway is being stopped.
            Busy: as many run as may.
            TooManyJobs: as many of this client run as may.
        """
        self.check_enabled()
        if draining or self.closing.is_set():
            raise ShuttingDown()
        if self._held.total >= self._most:
            raise Busy(f"limit of {self._most} live sessions reached; try again later", RETRY_AFTER)
        if self._held.by(client) >= self._per_client:
            raise TooManyJobs(f"limit of {self._per_client} live sessions per client address reached; end one of them")
        self._metrics.live.started(transport)
        try:
            with self._held.hold(client):
                yield
        finally:
            self._metrics.live.ended(transport)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Let `close` wait for the end of the block: the gateway tells the caller there why its session ends."""
        self._untold += 1
        try:
            yield
        finally:
            self._untold -= 1
            if not self._untold:
                self._all_told.set()

    def count_start(self, caller: Caller) -> None:
        """Count a start of the owner of an API key. Raises QuotaExceeded where there were too many in a minute."""
        if caller.limits:
            self._rates.add(caller.tenant, caller.limits.uploads_per_minute)

    def count_frame(self, transport: Transport) -> None:
        """Count a frame that is sent to a caller."""
        self._metrics.live.sent(transport)

    def count_error(self, kind: str) -> None:
        """Count an error of this class that has ended a session, where no request is left to count it."""
        self._metrics.count_error(kind)

    async def close(self) -> None:
        """End all sessions; return when their callers know it, or after a few seconds."""
        self.closing.set()
        self._all_told.clear()
        if self._untold:
            await wait_for(self._all_told, CLOSE_SECONDS)
        await cancel_and_wait(*self.tasks)
