"""A client of the talking-avatar service on NVIDIA Triton.

with AvatarClient("127.0.0.1:8001") as client:
    client.render("face.jpg", "speech.wav", background="White").save("out.mp4")
"""

from __future__ import annotations

import warnings

from ._async_jobs import AsyncAvatarJobs
from ._client import AvatarClient
from ._errors import AvatarClientError, Cancelled, InvalidRequest, ServerError, Unavailable
from ._events import Chunk, Cleared, Event, Frame, LiveEvent, LiveSummary, Progress, SegmentEnd, SessionInfo, Summary
from ._job_records import Job, JobError, JobEvent, JobResult, KeptFace
from ._jobs import AvatarJobs
from ._live import LiveSession
from ._options import File, LiveOptions, RenderOptions, Value
from ._render import RenderStream

__all__ = [
    "AsyncAvatarJobs",
    "AvatarClient",
    "AvatarClientError",
    "AvatarJobs",
    "Cancelled",
    "Chunk",
    "Cleared",
    "Event",
    "File",
    "Frame",
    "InvalidRequest",
    "Job",
    "JobError",
    "JobEvent",
    "JobResult",
    "KeptFace",
    "LiveEvent",
    "LiveOptions",
    "LiveSession",
    "LiveSummary",
    "Progress",
    "RenderOptions",
    "RenderStream",
    "SegmentEnd",
    "ServerError",
    "SessionInfo",
    "Summary",
    "Unavailable",
    "Value",
]

__version__ = "0.1.0"

_RENAMED = {"Failed": ServerError, "Refused": InvalidRequest, "Rendering": RenderStream}


def __getattr__(name: str) -> type:
    """Return a class by its former name, with a DeprecationWarning. Version 0.2 removes the former names."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed = _RENAMED[name]
    warnings.warn(f"avatar_client.{name} is now avatar_client.{renamed.__name__}", DeprecationWarning, stacklevel=2)
    return renamed
