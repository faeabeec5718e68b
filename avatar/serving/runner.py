"""What the streaming Triton models share: each request a task on one event loop, and an end for every stream.

It imports nothing of Triton: `pb_utils` is handed in, as in `lipsync.serving`. Facts about decoupled models that this
is built on, tried on Triton 2.51: a stream without its final flag keeps its caller waiting for ever, and the server
from stopping; an error and the final flag have to leave together, or a caller in Triton's mode `triton_grpc_error`
crashes the server with the flag that comes after; so does who asks whether a request was cancelled once its final
flag is sent; inputs lie in memory that is lent until `execute` returns.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model, Tensor
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from ..errors import AvatarError, ClientError, InvalidField, ShuttingDown, Unavailable
from ..form.parse import TEXT_BYTES, TOO_LONG
from ..request import choose_id

logger = logging.getLogger("avatar")

WATCH_SECONDS = 0.2
CLOSE_SECONDS = 10.0  # for what runs to end when the model is unloaded
CLIENT_CANCELLED = "499 the caller is gone"


class StreamRequest:
    """One request of a streaming model: its inputs, copied, and the way back.

    Attributes:
        id: names it in log lines: the request's own id where that can stand there.
        sequence, starts, ends: of a model with sequences, the session, and whether it is its first or last request.
    """

    def __init__(
        self, pb_utils: PbUtils, model: Model, request: InferenceRequest, threads: ThreadPoolExecutor, looks: ThreadPoolExecutor
    ) -> None:
        """Raises InvalidField and InvalidInput for an input that does not do; nothing is answered then."""
        self._pb, self._model, self._threads, self._looks = pb_utils, model, threads, looks
        self._sender = request.get_response_sender()
        self._ended = False  # the last answer is decided
        self._lock = threading.Lock()  # one message about a request at a time, and none behind the final flag
        self._is_final = False
        self.id = choose_id(_id(request))
        flags = request.flags()
        self.sequence = request.correlation_id()
        self.is_start = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
        self.is_end = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        self.problem: Exception | None = None
        self.inputs: dict[str, Array | str] = {}
        try:
            tensors = {tensor.name: tensor for tensor in model.inputs}
            for sent in request.inputs():  # Triton has refused a request that lacks one, or has one that is not ours
                self.inputs[sent.name()] = _read(tensors[sent.name()], sent.as_numpy())
        except Exception as error:
            self.problem = error.with_traceback(None)

    def check(self) -> None:
        """Raises what is wrong with the inputs."""
        if self.problem:
            raise self.problem

    def array(self, name: str) -> Array | None:
        """An input; None where it was not sent."""
        found = self.inputs.get(name)
        return None if found is None or isinstance(found, str) else found

    def texts(self) -> dict[str, str]:
        """All inputs that are text."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, str)}

    async def send(self, **outputs: Array | str | int) -> None:
        """One answer with these of the model's outputs."""
        await self._in_thread(self._send, self._response(outputs), False)

    async def finish(self, **outputs: Array | str | int) -> None:
        """The last answer, with these outputs if any. Later ones are dropped."""
        await self._last(self._response(outputs) if outputs else None)

    async def fail(self, error: BaseException) -> None:
        """The last answer: an error, `STATUS sentence`, with HTTP's status and sentence. Later ones are dropped."""
        await self._last(self._failure(error))

    async def is_cancelled(self) -> bool:
        """Whether the caller has cancelled, or is gone."""
        loop = asyncio.get_running_loop()
        return bool(await loop.run_in_executor(self._looks, self._look))

    def _response(self, outputs: dict[str, Array | str | int]) -> Any:  # noqa: ANN401
        by_name = {tensor.name: tensor for tensor in self._model.outputs}
        return self._pb.InferenceResponse(
            [self._pb.Tensor(name, _output(by_name[name], value)) for name, value in outputs.items()]
        )

    def _failure(self, error: BaseException) -> Any:  # noqa: ANN401
        codes = self._pb.TritonError
        if isinstance(error, asyncio.CancelledError):
            code, words = codes.CANCELLED, CLIENT_CANCELLED
        elif isinstance(error, ClientError):
            code, words = codes.INVALID_ARG, f"{error.status} {error}"
        elif isinstance(error, Unavailable):
            code, words = codes.UNAVAILABLE, f"{error.status} {error}"
        else:
            code, words = codes.INTERNAL, f"500 internal error; the server's log says more about request {self.id}"
        return self._pb.InferenceResponse(error=codes(words, code))

    async def _last(self, response: Any) -> None:  # noqa: ANN401
        if not self._ended:
            self._ended = True
            # the thread sends it even where this wait is cancelled
            await asyncio.shield(self._in_thread(self._send, response, True))

    def _send(self, response: Any, is_last: bool) -> None:  # noqa: ANN401
        flags = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        with self._lock:
            if self._is_final:
                return
            self._is_final = is_last
            if response is None:
                self._sender.send(flags=flags)
            else:
                self._sender.send(response, flags=flags)

    def _look(self) -> bool:
        with self._lock:
            return not self._is_final and bool(self._sender.is_cancelled())

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


Work = Callable[[StreamRequest], Awaitable[None]]


class RequestRunner:
    """The requests of one streaming model. Its own thread runs an event loop for all of them."""

    def __init__(self, pb_utils: PbUtils, model: Model, watch: float = WATCH_SECONDS) -> None:
        """`watch`: seconds between two looks whether a caller is still there."""
        self._pb, self._model, self._watch = pb_utils, model, watch
        # sending waits until the server has taken the answer, and asking until it has looked
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="answer")
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="look")  # however many are asked, answers go past them
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=model.name, daemon=True)
        self._thread.start()

    def submit(self, requests: list[InferenceRequest], work: Work) -> None:
        """Begin with each of the requests; they are Triton's again when this returns.

        `work` answers a call, or raises; its end, however it comes, ends the stream. It is cancelled when the caller
        is gone.
        """
        for request in requests:
            call = StreamRequest(self._pb, self._model, request, self._threads, self._looks)
            self.loop.call_soon_threadsafe(self._begin, call, work)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
        """Run `work` on the loop and wait for it, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        with suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self.loop).result(CLOSE_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._threads.shutdown(wait=False)
        self._looks.shutdown(wait=False)

    def _begin(self, call: StreamRequest, work: Work) -> None:
        task = self.loop.create_task(self._serve(call, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: StreamRequest, work: Work) -> None:
        try:
            await self._until_cancelled(call, work)
        except asyncio.CancelledError as error:
            await call.fail(ShuttingDown("the model is being unloaded") if self._closing else error)
        except Exception as error:
            self._log(call, error)
            await call.fail(error)
        finally:
            call.inputs.clear()
            await call.finish()

    async def _until_cancelled(self, call: StreamRequest, work: Work) -> None:
        """`work`, cancelled when the caller is."""
        task = asyncio.ensure_future(work(call))
        try:
            while not (await asyncio.wait((task,), timeout=self._watch))[0]:
                if await call.is_cancelled():
                    logger.info("the caller is gone; its work is dropped", extra={"request_id": call.id})
                    raise asyncio.CancelledError
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task  # its error's traceback leads here; in such a circle files would lie until Python looks for them

    async def _cancel_all(self) -> None:
        self._closing = True
        rest = asyncio.all_tasks() - {asyncio.current_task()}  # the sessions' own, too
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _log(self, call: StreamRequest, error: Exception) -> None:
        about = {"request_id": call.id}
        if isinstance(error, ClientError):
            logger.info("refused with %d: %s", error.status, error, extra=about)
        elif isinstance(error, Unavailable):
            logger.log(logging.INFO if isinstance(error, ShuttingDown) else logging.WARNING, "%s", error, extra=about)
        elif not isinstance(error, AvatarError) or type(error) is AvatarError:
            logger.error("internal error", exc_info=error, extra=about)


class TritonLog(logging.Handler):
    """Log records as lines of the server's own log."""

    def __init__(self, pb_utils: PbUtils, model: Model) -> None:
        super().__init__()
        self._log, self._model = pb_utils.Logger, model

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a line for a message, whatever it quotes."""
        text = f"{self._model.name} [{getattr(record, 'request_id', '-')}] {self.format(record)}"
        text = " | ".join(filter(None, map(str.strip, text.splitlines())))
        if record.levelno >= logging.ERROR:
            self._log.log_error(text)
        elif record.levelno >= logging.WARNING:
            self._log.log_warn(text)
        else:
            self._log.log_info(text)


def log_to_triton(pb_utils: PbUtils, model: Model) -> None:
    """Send this package's log lines to the server's log. A stub process has one model only."""
    logger.handlers[:] = [TritonLog(pb_utils, model)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _id(request: InferenceRequest) -> str | None:
    try:
        return str(request.request_id())
    except UnicodeDecodeError:  # HTTP lets it through
        return None


def _read(tensor: Tensor, array: Array) -> Array | str:
    """An input, copied: text where it is one."""
    if not tensor.accepts(array):
        raise InvalidField(tensor.name, tensor.mismatch(array))
    if tensor.dtype != "BYTES":
        return array.copy()
    text: bytes = array[0]
    if len(text) > TEXT_BYTES:
        raise InvalidField(tensor.name, TOO_LONG)
    return text.decode("utf-8", "replace")


def _output(tensor: Tensor, value: Array | str | int) -> Array:
    if isinstance(value, str):
        return np.array([value.encode()], np.object_)
    array = np.ascontiguousarray(np.atleast_1d(value), tensor.numpy)
    tensor.check(array)
    return array
