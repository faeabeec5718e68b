"""What a conversation yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._errors import AvatarClientError
from ._events import SessionInfo


@dataclass(frozen=True, eq=False)
class ConversationFrame:
    """One frame, to be shown while its sound is played.

    Attributes:
        index: its index in its session.
        image: UINT8 [H,W,3] RGB.
        sound: INT16 samples at the conversation's rate; None while the face rests.
        position: samples of all speech that was said, up to the end of `sound`.
    """

    index: int
    image: NDArray[np.uint8]
    sound: NDArray[np.int16] | None
    position: int


@dataclass(frozen=True)
class SpeechEnd:
    """All frames of a segment came before it. An interrupted segment has none."""


@dataclass(frozen=True)
class ServerLost:
    """The server is lost: the speech goes on with the last image.

    Attributes:
        error: why.
        is_final: whether no new session is tried, because the same request would be rejected again.
    """

    error: AvatarClientError
    is_final: bool


@dataclass(frozen=True)
class ServerBack:
    """A new session has started after `ServerLost`."""

    info: SessionInfo


Event = ConversationFrame | SpeechEnd | ServerLost | ServerBack


def is_resting(event: Event) -> bool:
    """Return whether an event is a frame at rest."""
    return isinstance(event, ConversationFrame) and event.sound is None
