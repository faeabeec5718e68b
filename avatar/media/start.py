"""What a process does before its first job: limit threads, keep memory, test ffmpeg, the GPU and the signature."""

from __future__ import annotations

import asyncio

from ..errors import FfmpegFault
from ..settings import JobSettings
from .allocator import keep_freed_memory
from .hardware import HARDWARE
from .marking import failure_of_mark
from .self_test import failure_at_start
from .threads import limit_opencv


async def prepare(settings: JobSettings) -> str:
    """Prepare this process for jobs; return a sentence that says why it cannot start, or an empty string."""
    limit_opencv()
    keep_freed_memory()
    if failure := await failure_at_start():
        return failure
    try:
        await HARDWARE.choose(settings.encoder, settings.decoder)
    except FfmpegFault as fault:
        return f"cannot start: {fault.reason}; set AVATAR_ENCODER and AVATAR_DECODER to auto, or mend the driver"
    return await asyncio.to_thread(failure_of_mark, settings)
