"""A client of the talking-avatar service on NVIDIA Triton.

with AvatarClient("127.0.0.1:8001") as client:
    client.render("face.jpg", "speech.wav", background="White").save("out.mp4")
"""

from ._client import AvatarClient
from ._errors import AvatarClientError, Cancelled, Failed, Refused, Unavailable
from ._events import Chunk, Event, Frame, LiveSummary, Progress, SessionInfo, Summary
from ._live import LiveSession
from ._options import File, LiveOptions, RenderOptions, Value
from ._render import Rendering

__all__ = [
    "AvatarClient",
    "AvatarClientError",
    "Cancelled",
    "Chunk",
    "Event",
    "Failed",
    "File",
    "Frame",
    "LiveOptions",
    "LiveSession",
    "LiveSummary",
    "Progress",
    "Refused",
    "RenderOptions",
    "Rendering",
    "SessionInfo",
    "Summary",
    "Unavailable",
    "Value",
]
