"""The calls of AvatarJobs for an event loop. Each runs in a thread of its own, and cancelling its task ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from ._http import OnProgress
from ._job_records import Job, JobEvent, JobState, KeptFace
from ._jobs import AvatarJobs, Priority
from ._jobs_http import CURRENT, Call
from ._options import File, RenderOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class AsyncAvatarJobs:
    """Jobs of one gateway, for an event loop. Arguments, results and errors are those of AvatarJobs.

    `on_progress` is called in another thread.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 120.0, retries: int = 3) -> None:
        """Make a client; see `AvatarJobs`. Raises ValueError."""
        self._jobs = AvatarJobs(url, key, timeout=timeout, retries=retries)

    async def submit(
        self,
        face: File | None,
        audio: File,
        /,
        *,
        avatar: str | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        webhook_events: Sequence[str] = (),
        result_url: str | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress = lambda stage, done, total: None,
        **chosen: Unpack[RenderOptions],
    ) -> Job:
        """Hand over a job, and return it, queued."""
        return await _run(
            lambda: self._jobs.submit(
                face,
                audio,
                avatar=avatar,
                priority=priority,
                webhook=webhook,
                webhook_events=webhook_events,
                result_url=result_url,
                idempotency_key=idempotency_key,
                on_progress=on_progress,
                **chosen,
            )
        )

    async def get(self, job: str) -> Job:
        """Return a job as it is now."""
        return await _run(lambda: self._jobs.get(job))

    def list(self, state: JobState | None = None) -> AsyncIterator[Job]:
        """Yield the jobs of this key, newest first, of one state or of all."""
        return _iterate(lambda: self._jobs.list(state))

    def watch(self, job: str, *, after: str | None = None, timeout: float | None = None) -> AsyncIterator[JobEvent]:
        """Yield what happens to a job, from its start, until it has ended."""
        return _iterate(lambda: self._jobs.watch(job, after=after, timeout=timeout))

    async def wait(self, job: str, timeout: float | None = None) -> Job:
        """Return the job when it has ended."""
        return await _run(lambda: self._jobs.wait(job, timeout))

    async def result(
        self, job: str, path: str | os.PathLike[str], on_progress: OnProgress = lambda stage, done, total: None
    ) -> Job:
        """Write the video of a job to `path`, which is complete or stays as it was; return the job."""
        return await _run(lambda: self._jobs.result(job, path, on_progress))

    async def cancel(self, job: str) -> Job:
        """Cancel a job that has not ended, and return it; one that has ended stays as it is."""
        return await _run(lambda: self._jobs.cancel(job))

    async def remove(self, job: str) -> None:
        """Remove a job and its video; one that has not ended is canceled first."""
        await _run(lambda: self._jobs.remove(job))

    async def keep_face(self, face: File, on_progress: OnProgress = lambda stage, done, total: None) -> KeptFace:
        """Let the service keep a face, and return it; `submit` takes its `id` as `avatar`."""
        return await _run(lambda: self._jobs.keep_face(face, on_progress))

    async def get_face(self, face: str) -> KeptFace:
        """Return a kept face by its id."""
        return await _run(lambda: self._jobs.get_face(face))

    def list_faces(self) -> AsyncIterator[KeptFace]:
        """Yield the kept faces of this key, newest first."""
        return _iterate(self._jobs.list_faces)

    async def remove_face(self, face: str) -> None:
        """Remove a kept face; one that a job needs stays, which is an InvalidRequest."""
        await _run(lambda: self._jobs.remove_face(face))


async def _run(call: Callable[[], T]) -> T:
    """Return what `call` returns. If this task is cancelled, the call ends within moments."""
    async with contextlib.aclosing(_iterate(lambda: iter([call()]))) as results:
        async for result in results:
            return result
    raise AssertionError("the call has no result")


async def _iterate(start: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Yield what the iterator yields that `start` makes; it runs in a thread, one step ahead at most."""
    loop, call = asyncio.get_running_loop(), Call()
    steps: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    taken = threading.Semaphore(0)

    def put(step: tuple[T] | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(steps.put_nowait, step)

    def work() -> None:
        CURRENT.set(call)
        try:
            for each in start():
                put((each,))
                taken.acquire()
                call.check()
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="avatar-jobs", daemon=True)
    thread.start()
    try:
        while (step := await steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            yield step[0]
            taken.release()
    finally:
        call.cancel()
        taken.release()
