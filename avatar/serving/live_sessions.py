"""The live sessions of one instance of the model, by the ids of their sequences."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lipsync.tensors import FACE_FILE, SEQUENCE_IDLE_SECONDS, SESSION_TOKEN

from ..errors import Busy, ClientError, ShuttingDown, TooLarge
from ..settings import MIB, LiveSettings
from .live_errors import NO_SESSION, Refusal, SequenceInUse, WrongToken, reason_for_others
from .live_session import LiveSession
from .request import NotRead, StreamRequest
from .server_memory import UnreadLimit

Sequence = int | str
ENDED_SECONDS = 5.0  # after the last request of an ended session; Triton has then forgotten its sequence


@dataclass
class _Ended:
    """A sequence that has no session any more, but may still be in Triton's table."""

    refusal: Refusal
    last_request: float


class LiveSessions:
    """Admits sessions, finds the session of a request, limits their memory, and knows why a session is over.

    Attributes:
        running: the sessions that have not ended.
    """

    def __init__(self, settings: LiveSettings, on_change: Callable[[int], None]) -> None:
        """Begin without a session; `on_change` is called with the number of running ones when that changes."""
        self._settings, self._on_change = settings, on_change
        self.running: dict[Sequence, LiveSession] = {}
        self._ended: dict[Sequence, _Ended] = {}
        self._limits: dict[LiveSession, UnreadLimit] = {}

    def track(self, request: StreamRequest) -> None:
        """Follow what a request has done to its sequence in Triton's table, which is before the model gets it."""
        session = self.running.get(request.sequence)
        if session and (request.is_start or request.is_end):
            session.is_in_table = not request.is_end

    def kept(self) -> list[tuple[Sequence, LiveSession]]:
        """Return the sessions whose sequences have to stay in Triton's table."""
        return [(sequence, session) for sequence, session in self.running.items() if session.is_in_table]

    def refusal(self, request: StreamRequest) -> Refusal | None:
        """Return why a request may not use, or replace, the session of its sequence id. None: it may."""
        session = self.running.get(request.sequence)
        token = request.texts().get(SESSION_TOKEN)
        if request.is_start:
            if session is None or session.access.is_owner(token):
                return None
            session.is_contested = True
            return Refusal(SequenceInUse())
        if session is None:
            ended = self._ended.get(request.sequence)
            if ended is None:
                return Refusal(ClientError(NO_SESSION))
            ended.last_request = time.monotonic()
            return ended.refusal
        if session.access.admits(token):
            return None
        # Requests that follow a refused start get the same reason as that: Triton may change the order of errors.
        return Refusal(SequenceInUse() if session.is_contested and token is None else WrongToken())

    def admit(self, request: StreamRequest, sequence: Sequence, make: Callable[[], LiveSession]) -> LiveSession:
        """Register the session of a first request under an id; the one before it, whose token it has, is closed.

        Raises:
            Busy: the limit of sessions is reached.
        """
        if old := self.running.get(sequence):
            self.end(old)
        self._ended.pop(sequence, None)
        if len(self.running) >= self._settings.live_sessions:
            error = Busy(f"limit of {self._settings.live_sessions} live sessions reached; try again later")
            self._remember(request.sequence, Refusal(error, request, is_known=True))
            raise error
        session = self.running[sequence] = make()
        session.is_in_table = not request.is_end
        self._limits[session] = UnreadLimit(self._settings.unread_mib * MIB)
        self._on_change(len(self.running))
        return session

    def reserve(self, session: LiveSession, size: int) -> None:
        """Reserve memory for a session's avatar.

        Raises:
            TooLarge: more than all sessions together may have.
            Busy: other sessions have reserved too much of it.
        """
        budget = self._settings.live_memory_mib * MIB
        if size > budget:
            sizes = f"its frames take {size >> 20} MiB, at most {budget >> 20} are allowed"
            raise TooLarge(f"{FACE_FILE}: too large for a live session: {sizes}; send fewer frames, or set max_height")
        if size + sum(other.size for other in self.running.values()) > budget:
            raise Busy("other live sessions take the memory that this avatar needs; try again later")
        session.size = size

    def end(self, session: LiveSession, error: BaseException | None = None, cause: StreamRequest | None = None) -> None:
        """Close a session. Its other requests fail with `error` if that concerns them, once `cause` has failed."""
        sequence = self._forget(session)
        if sequence is None:
            return
        refusal = Refusal(reason_for_others(error), cause, is_known=True)
        self._remember(sequence, refusal)
        session.cause = cause
        session.close(refusal.error)

    def finished(self, session: LiveSession) -> None:
        """Remove a session that ends by itself."""
        self._forget(session)

    def _forget(self, session: LiveSession) -> Sequence | None:
        """Remove a session and return its sequence id; None where it is not running."""
        self._limits.pop(session, None)
        for sequence, known in tuple(self.running.items()):
            if known is session:
                del self.running[sequence]
                self._on_change(len(self.running))
                return sequence
        return None

    def idle(self) -> list[LiveSession]:
        """Return the sessions that have had no request for too long: their callers are gone."""
        last = time.monotonic() - SEQUENCE_IDLE_SECONDS
        return [session for session in self.running.values() if not session.in_flight and session.last_active < last]

    def end_unread(self) -> LiveSession | None:
        """End the session with the most unread output, if the server's memory has grown by too much during it."""
        suspects = [each for each, limit in self._limits.items() if limit.is_exceeded(each.output.unread)]
        if not suspects:
            return None
        worst = max(suspects, key=lambda each: self._limits[each].growth(each.output.unread))
        self.end(worst, NotRead(worst.output.unread // MIB))
        for session, limit in self._limits.items():  # the memory may be due to that one alone
            limit.restart(session.output.unread)
        return worst

    def stop(self, reason: ShuttingDown) -> None:
        """End all sessions: the server is being stopped."""
        for session in tuple(self.running.values()):
            self.end(session, reason)

    def forget_ended(self) -> None:
        """Forget the reasons why sessions have ended that no request asks for any more."""
        last = time.monotonic() - ENDED_SECONDS
        for sequence, ended in tuple(self._ended.items()):
            if ended.last_request < last:
                del self._ended[sequence]

    def _remember(self, sequence: Sequence, refusal: Refusal) -> None:
        self._ended[sequence] = _Ended(refusal, time.monotonic())
