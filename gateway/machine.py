"""Check what a job needs of this machine: a work folder that can be written, and an ffmpeg that works."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from avatar.errors import FfmpegFault, MachineFault, StorageFault
from avatar.media.self_test import PASS_SECONDS, SelfTest, copy_of
from avatar.resources.workspace import Workspace

WAIT_SECONDS = 2.0  # a probe waits so long for a check; orchestrators give up after a few seconds


@dataclass(frozen=True)
class LastFault:
    """The last fault that a request met."""

    reason: str
    at: float  # by the monotonic clock

    @property
    def seconds_ago(self) -> int:
        """Return the whole seconds since then."""
        return int(time.monotonic() - self.at)


class Machine:
    """The work folder and ffmpeg of this process.

    Args:
        workspace: the work folder.
        ffmpeg: the self-test of ffmpeg; None for a gateway whose jobs do not run it.

    Attributes:
        last_fault: None before the first one.
    """

    def __init__(self, workspace: Workspace, ffmpeg: SelfTest | None) -> None:
        self._workspace, self._ffmpeg = workspace, ffmpeg
        self._writing: asyncio.Future[None] | None = None
        self._ffmpeg_fault_at: float | None = None
        self.last_fault: LastFault | None = None

    def record(self, fault: MachineFault) -> None:
        """Remember a fault that a request met; the next check tests ffmpeg again if the fault is of ffmpeg."""
        self.last_fault = LastFault(fault.reason, time.monotonic())
        if isinstance(fault, FfmpegFault):
            self._ffmpeg_fault_at = self.last_fault.at

    async def check(self) -> None:
        """Return if a job can be done. Raises MachineFault."""
        await self._check_storage()
        await self._check_ffmpeg()

    async def check_failing(self) -> None:
        """Return at once, unless the last test of ffmpeg failed: then test it again. Raises MachineFault."""
        if self._ffmpeg:
            await self._ffmpeg.check_failing()

    async def _check_storage(self) -> None:
        """Write to the work folder. A disk that does not respond occupies one thread, however many probes there are."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._workspace.check))
        done, _ = await asyncio.wait((self._writing,), timeout=WAIT_SECONDS)
        if not done:
            raise StorageFault("the disk of the work folder does not respond")
        self._writing.result()

    async def _check_ffmpeg(self) -> None:
        """Test ffmpeg; where the test takes long, because the machine is busy, its last result counts until then."""
        if self._ffmpeg is None:
            return
        since_fault = PASS_SECONDS if self._ffmpeg_fault_at is None else time.monotonic() - self._ffmpeg_fault_at
        check = asyncio.ensure_future(self._ffmpeg.check(max_age=min(PASS_SECONDS, since_fault)))
        try:
            done, _ = await asyncio.wait((check,), timeout=WAIT_SECONDS)
        finally:
            check.cancel()
        if done:
            check.result()
        elif failure := self._ffmpeg.failure:
            raise copy_of(failure) from failure
