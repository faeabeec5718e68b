"""Why a request of a live session is rejected because of its session."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AvatarError, ClientError
from .request import StreamRequest

NO_SESSION = "no such session: it has ended, was idle for too long, or was never started"
NOT_ITS_OWNER = "token: not the token of this session; send the one that its `session` response contains"
IN_USE = (
    "another session runs under this sequence_id: choose a random one; "
    "to replace that session, send its token with the first request"
)


class WrongToken(ClientError):
    """The request has no token, or another one than its session. The session goes on."""

    status = 403

    def __init__(self) -> None:
        super().__init__(NOT_ITS_OWNER)


class SequenceInUse(ClientError):
    """A session was to be started under the id of another one. That one goes on."""

    status = 409

    def __init__(self) -> None:
        super().__init__(IN_USE)


@dataclass(frozen=True)
class Refusal:
    """Why a request is rejected.

    Attributes:
        error: the reason.
        after: the request that caused it: its own error is sent first.
        is_known: whether the reason is in the log already.
    """

    error: Exception
    after: StreamRequest | None = None
    is_known: bool = False


def reason_for_others(error: BaseException | None) -> Exception:
    """Return what the other requests of a session are told, which `error` has ended."""
    if isinstance(error, AvatarError) and type(error) is not AvatarError:
        return error
    return ClientError(NO_SESSION)
