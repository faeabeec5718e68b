"""A live session in a thread of its own, for an event loop that must not wait."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from ._errors import Cancelled
from ._events import Frame
from ._live import LiveSession

T = TypeVar("T")


class SessionOwner(Protocol):
    """Gets what a session does; each method is called on the event loop, in order."""

    def session_started(self, session: LiveSession) -> None:
        """Take the session."""

    def session_event(self, event: object) -> None:
        """Take a frame with an RGB image, or another event of the session."""

    def session_ended(self, error: Exception) -> None:
        """Take the reason why the session has ended, or has not started."""


class SessionThread:
    """Starts a session and takes its events, until the session ends or `cancel` is called."""

    def __init__(self, connect: Callable[[], LiveSession], owner: SessionOwner) -> None:
        """Start the thread. `connect` starts the session, and may wait for long."""
        self._connect, self._owner = connect, owner
        self._loop = asyncio.get_running_loop()
        self._is_cancelled = False
        self._session: LiveSession | None = None
        threading.Thread(target=self._run, name="avatar-client-conversation", daemon=True).start()

    def cancel(self) -> None:
        """Cancel the session; the owner gets nothing more."""
        self._is_cancelled = True
        if self._session:
            self._session.cancel()

    def _run(self) -> None:
        try:
            self._session = session = self._connect()
            if self._is_cancelled:  # `cancel` was called before the session was there
                session.cancel()
            self._post(self._owner.session_started, session)
            for event in session.events():
                self._post(self._owner.session_event, _in_rgb(event))
            error: Exception = Cancelled("the session has ended")
        except Exception as raised:  # the owner has to know, whatever it is
            error = raised
        self._post(self._owner.session_ended, error)

    def _post(self, function: Callable[[T], None], value: T) -> None:
        def call() -> None:
            if not self._is_cancelled:
                function(value)

        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed, and the session is of no use any more
            self.cancel()


def _in_rgb(event: object) -> object:
    """Return a frame with its image in RGB, made here so that the event loop does not wait for it."""
    if isinstance(event, Frame) and event.image is not None:
        return dataclasses.replace(event, image=np.ascontiguousarray(event.image[..., ::-1]))
    return event
