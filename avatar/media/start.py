"""What a process does before its first job: test ffmpeg, find out what the GPU does, limit threads."""

from __future__ import annotations

from ..errors import FfmpegFault
from .hardware import HARDWARE
from .self_test import failure_at_start
from .threads import limit_opencv


async def prepare(encoder: str, decoder: str) -> str:
    """Prepare this process for jobs; return a sentence that says why it cannot start, or an empty string.

    Args:
        encoder: of the settings: `auto`, `x264` or `nvenc`.
        decoder: of the settings: `auto`, `cpu` or `cuda`.
    """
    limit_opencv()
    if failure := await failure_at_start():
        return failure
    try:
        await HARDWARE.choose(encoder, decoder)
    except FfmpegFault as fault:
        return f"cannot start: {fault.reason}; set AVATAR_ENCODER and AVATAR_DECODER to auto, or mend the driver"
    return ""
