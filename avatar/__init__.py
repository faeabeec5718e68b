"""The job as a library: a request in, a stream of progress and the mp4 out.

    async for event in render(request, models):
        ...

It knows neither HTTP nor a gRPC server. The networks are reached through `avatar.inference.protocol`: over gRPC by
`avatar.inference.grpc_client`, inside Triton by `avatar.inference.bls_client`, in tests by `avatar.testing`.

The names below are imported on first use, so that a part of the package does not load all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        AvatarError,
        Busy,
        ClientError,
        FaceNotFound,
        InvalidField,
        ShuttingDown,
        TooLarge,
        Unavailable,
    )
    from .events import Chunk, Event, Progress, RenderResult
    from .limits import Limits
    from .options import Options
    from .pipeline import render
    from .request import AvatarRequest, Background, Color

__all__ = [
    "AvatarError",
    "AvatarRequest",
    "Background",
    "Busy",
    "Chunk",
    "ClientError",
    "Color",
    "Event",
    "FaceNotFound",
    "InvalidField",
    "Limits",
    "Options",
    "Progress",
    "RenderResult",
    "ShuttingDown",
    "TooLarge",
    "Unavailable",
    "render",
]

_MODULES = {
    "AvatarError": "errors",
    "AvatarRequest": "request",
    "Background": "request",
    "Busy": "errors",
    "Chunk": "events",
    "ClientError": "errors",
    "Color": "request",
    "Event": "events",
    "FaceNotFound": "errors",
    "InvalidField": "errors",
    "Limits": "limits",
    "Options": "options",
    "Progress": "events",
    "RenderResult": "events",
    "ShuttingDown": "errors",
    "TooLarge": "errors",
    "Unavailable": "errors",
    "render": "pipeline",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
