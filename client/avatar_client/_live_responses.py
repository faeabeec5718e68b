"""What the responses of a live session contain."""

from __future__ import annotations

from . import _messages
from ._events import Cleared, Frame, LiveEvent, LiveSummary, SegmentEnd, parse_json
from ._kserve import InferResponse


def read_response(response: InferResponse) -> tuple[list[LiveEvent], LiveSummary | None]:
    """Return the events in a response, and the summary if it has one.

    Raises:
        ServerError: it cannot be read.
    """
    texts, frame = _messages.texts(response), _frame(response)
    events: list[LiveEvent] = [frame] if frame else []
    if "segment" in texts:
        events.append(parse_json(SegmentEnd, texts["segment"]))
    if "cleared" in texts:
        events.append(parse_json(Cleared, texts["cleared"]))
    return events, parse_json(LiveSummary, texts["summary"]) if "summary" in texts else None


def _frame(response: InferResponse) -> Frame | None:
    arrays = _messages.arrays(response)
    if "index" not in arrays:
        return None
    jpeg, seconds = arrays.get("jpeg"), arrays.get("sound_time")
    x1, y1, x2, y2 = arrays["box"].tolist() if "box" in arrays else (0, 0, 0, 0)
    return Frame(
        index=int(arrays["index"][0]),
        image=arrays.get("frame"),
        jpeg=None if jpeg is None else jpeg.tobytes(),
        box=(x1, y1, x2, y2),
        sound=arrays.get("sound"),
        sound_time=None if seconds is None or seconds[0] < 0 else float(seconds[0]),
    )
