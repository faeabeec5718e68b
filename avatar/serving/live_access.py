"""Who may use a live session, and how much of its output its caller has read."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

TOKEN_BYTES = 16


class SessionAccess:
    """The secret of one session. From the first request that presents it on, every request has to.

    Attributes:
        token: the secret, 22 characters.
    """

    def __init__(self, *, required: bool) -> None:
        """Make a secret; `required` from the start, or not until it was presented (callers of API 1.0 never do)."""
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._required = required

    def is_owner(self, token: str | None) -> bool:
        """Return whether this is the secret; the time that this takes reveals nothing about it."""
        return token is not None and secrets.compare_digest(token.encode(), self.token.encode())

    def admits(self, token: str | None) -> bool:
        """Return whether a request with this token belongs to the session."""
        if self.is_owner(token):
            self._required = True
            return True
        return token is None and not self._required


@dataclass
class UnreadFrames:
    """What was sent and not acknowledged, estimated from the mean size of a frame."""

    frames: int = 0
    size: int = 0
    received: int = 0

    def add(self, size: int) -> None:
        """Count a frame of `size` bytes that was sent."""
        self.frames += 1
        self.size += size

    def acknowledge(self, index: int) -> None:
        """Count all frames up to this index as read."""
        self.received = max(self.received, min(index + 1, self.frames))

    @property
    def unread(self) -> int:
        """Bytes that the caller may not have read."""
        return self.size * (self.frames - self.received) // max(1, self.frames)
