"""Run the requests of a streaming Triton model: each is a task on one event loop, and every stream gets its end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from lipsync.tensors import Model
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from .. import tracing
from ..errors import AvatarError, ClientError, MachineFault, ShuttingDown, Unavailable
from ..faults import machine_fault
from .metrics import ModelMetrics
from .request import StreamRequest

logger = logging.getLogger("avatar")
T = TypeVar("T")

CANCEL_POLL_SECONDS = 0.2
CLOSE_SECONDS = 10.0  # for running work to end when the model is unloaded

Work = Callable[[StreamRequest], Awaitable[None]]


class RequestRunner:
    """The requests of one streaming model. Its own thread runs an event loop for all of them."""

    def __init__(
        self,
        pb_utils: PbUtils,
        model: Model,
        metrics: ModelMetrics,
        cancel_poll: float = CANCEL_POLL_SECONDS,
        is_own: Callable[[StreamRequest], bool] = lambda request: False,
    ) -> None:
        """Start the loop.

        Args:
            pb_utils: Triton's module for Python models.
            model: the model.
            metrics: counts how the requests end.
            cancel_poll: seconds between two checks for a cancelled request.
            is_own: whether the model itself has sent a request: such a one is neither counted nor traced.
        """
        self._pb, self._model, self._cancel_poll = pb_utils, model, cancel_poll
        self._metrics, self._is_own = metrics, is_own
        # Sending blocks until the server has taken the response, and the check for a cancelled request until the
        # server has answered it. The checks have a thread of their own, so that they never delay responses.
        self._send_threads = ThreadPoolExecutor(8, thread_name_prefix="send")
        self._cancel_threads = ThreadPoolExecutor(1, thread_name_prefix="cancel")
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=model.name, daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[InferenceRequest], work: Work) -> None:
        """Start the work on each request. The requests belong to Triton again when this returns.

        `work` sends the responses to its request, or raises. Its end, whatever the reason, ends the stream. It is
        cancelled when the caller cancels or disconnects.
        """
        for request in requests:
            stream_request = StreamRequest(self._pb, self._model, request, self._send_threads, self._cancel_threads)
            self.loop.call_soon_threadsafe(self._start, stream_request, work)

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` on the loop and wait for its result, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Cancel everything that runs, and end the thread."""
        with suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result(CLOSE_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self.loop.close()
        self._send_threads.shutdown(wait=False)
        self._cancel_threads.shutdown(wait=False)

    def _start(self, request: StreamRequest, work: Work) -> None:
        task = self.loop.create_task(self._serve(request, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: StreamRequest, work: Work) -> None:
        tracing.request_id.set(request.id)
        if self._is_own(request):
            await self._answer(request, work)
        elif request.traceparent or not self._model.sequences or request.is_start:
            name, parent = self._model.name, request.traceparent
            with tracing.span(f"serve {name}", kind="server", parent=parent, request_id=request.id, model=name) as span:
                request.begin_stage = tracing.stages()
                error = await self._answer(request, work)
                if isinstance(error, Exception) and not isinstance(error, ClientError):
                    span.fail(type(error).__qualname__)
            self._metrics.count_end(error)
        else:  # a session sends a request every few milliseconds: only who asks for it gets a trace of each
            self._metrics.count_end(await self._answer(request, work))

    async def _answer(self, request: StreamRequest, work: Work) -> BaseException | None:
        """Do the work, and end the stream; return the error that it was answered with."""
        answered: BaseException | None = None
        try:
            await self._until_cancelled(request, work)
        except asyncio.CancelledError as error:
            answered = ShuttingDown("the model is being unloaded") if self._closing else error
            await request.fail(answered)
        except Exception as error:
            answered = machine_fault(error) or error
            _log_failure(request, answered)
            await request.fail(answered)
        finally:
            request.inputs.clear()
            await request.finish()
        return answered.with_traceback(None) if answered else None

    async def _until_cancelled(self, request: StreamRequest, work: Work) -> None:
        """Run `work`; cancel it when the caller cancels."""
        task = asyncio.ensure_future(work(request))
        try:
            while not (await asyncio.wait((task,), timeout=self._cancel_poll))[0]:
                if await request.is_cancelled():
                    logger.info("the client disconnected; its work is cancelled", extra={"request_id": request.id})
                    raise asyncio.CancelledError
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # The traceback of the task's error refers to this frame: in such a cycle, files would stay open until
            # Python's garbage collector finds it.
            del task

    async def _cancel_all(self) -> None:
        self._closing = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # those of the sessions, too
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(request: StreamRequest, error: Exception) -> None:
    extra = {"request_id": request.id}
    if isinstance(error, ClientError):
        logger.info("rejected with %d: %s", error.status, error, extra=extra)
    elif isinstance(error, MachineFault):
        logger.error("fault of this machine: %s (%s)", error.reason, error.__cause__ or "no other cause", extra=extra)
    elif isinstance(error, Unavailable):
        logger.log(logging.INFO if isinstance(error, ShuttingDown) else logging.WARNING, "%s", error, extra=extra)
    elif not isinstance(error, AvatarError) or type(error) is AvatarError:
        logger.error("internal error", exc_info=error, extra=extra)
