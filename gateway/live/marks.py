"""The text messages of a session that the gateway makes of what the model says."""

from __future__ import annotations

from collections.abc import Mapping

from avatar.inference.live_stream import LiveMark
from avatar.tracing import request_id

from .messages import ClearedMessage, FromGateway, SegmentMessage, SessionMessage, SummaryMessage

SUMMARY = "summary"  # the last one

_MARKS: Mapping[str, type[FromGateway]] = {
    "segment": SegmentMessage,
    "cleared": ClearedMessage,
    SUMMARY: SummaryMessage,
}


def session_message(info: Mapping[str, object]) -> str:
    """Return the message that a session has started."""
    return SessionMessage.model_validate({**info, "request_id": request_id.get()}).model_dump_json(exclude_none=True)


def mark_message(mark: LiveMark) -> str:
    """Return the message of a mark."""
    return _MARKS[mark.kind](**mark.data).model_dump_json()
