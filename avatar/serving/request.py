"""One request of a streaming Triton model: its inputs, and the responses to it.

Rules for decoupled models, found out with Triton 2.51, that this file keeps:
- A stream without its final flag keeps its caller waiting and the server from stopping.
- An error and the final flag have to be one message: a caller in Triton's mode `triton_grpc_error` crashes the server
  with a flag that follows an error.
- Asking whether a request was cancelled, after its final flag was sent, crashes the server.
- Inputs are in memory that is the model's only until `execute` returns.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model, Tensor
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse, PbUtils

from .. import tracing
from ..errors import ClientError, InvalidField, Unavailable
from ..form.parse import MAX_TEXT_BYTES, TOO_LONG
from ..request import choose_id

CLIENT_CANCELLED = "499 the client cancelled the request or disconnected"
TRACEPARENT = "traceparent"  # a parameter of the request, or metadata that `embedded.command_line` lets Triton forward
Output = Array | str | int | float


class NotRead(Unavailable):
    """The caller does not read its responses, so that the server's memory grows."""

    def __init__(self, mebibytes: int) -> None:
        super().__init__(
            f"the stream was ended: {mebibytes} MiB of its responses are not acknowledged, and the server's memory "
            "grows; read the responses while they are sent"
        )


class StreamRequest:
    """One request of a streaming model: its inputs, copied, and the way back.

    Attributes:
        id: names the request in log lines: the caller's own id where it is fit for that.
        sequence: the id of the request's session, of a model with sequences.
        is_start: whether the request is the session's first.
        is_end: whether the request is the session's last.
        problem: what is wrong with the inputs, if anything is.
        inputs: by name; text where the tensor is text.
        ended: set once the last response was sent.
        traceparent: of the span that the request belongs to: Triton's own, else the caller's; None where there is none.
        begin_stage: begins the span of a stage of the work on it.
    """

    def __init__(
        self,
        pb_utils: PbUtils,
        model: Model,
        request: InferenceRequest,
        send_threads: ThreadPoolExecutor,
        cancel_threads: ThreadPoolExecutor,
    ) -> None:
        """Copy the inputs. Invalid ones do not raise here: they are the `problem`, and `check` raises it."""
        self._pb, self._model = pb_utils, model
        self._send_threads, self._cancel_threads = send_threads, cancel_threads
        self._sender = request.get_response_sender()
        self._ended = False  # the last response is decided
        self._lock = threading.Lock()  # one message about a request at a time, and none after the final flag
        self._is_final = False
        self.id = choose_id(_id(request))
        flags = request.flags()
        self.sequence = request.correlation_id()
        self.is_start = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
        self.is_end = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        self.ended = asyncio.Event()
        self.traceparent = _traceparent(request) if tracing.is_on() else None
        self.begin_stage = tracing.stages()
        self.problem: Exception | None = None
        self.inputs: dict[str, Array | str] = {}
        self._read_inputs(request)

    def check(self) -> None:
        """Raise what is wrong with the inputs: InvalidField, or whatever failed while they were read."""
        if self.problem:
            raise self.problem

    def array(self, name: str) -> Array | None:
        """Return an input that is not text; None where it was not sent."""
        value = self.inputs.get(name)
        return None if value is None or isinstance(value, str) else value

    def texts(self) -> dict[str, str]:
        """Return all inputs that are text."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, str)}

    async def send(self, **outputs: Output) -> None:
        """Send a response with these of the model's outputs."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._send_threads, self._send, self._response(outputs), False)

    async def finish(self, **outputs: Output) -> None:
        """Send the last response, with these outputs if any. Later ones are dropped."""
        await self._send_last(self._response(outputs) if outputs else None)

    async def fail(self, error: BaseException) -> None:
        """Send the last response: an error `STATUS sentence`, with HTTP's status. Later responses are dropped."""
        await self._send_last(self._error_response(error))

    async def is_cancelled(self) -> bool:
        """Return whether the caller has cancelled or disconnected."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._cancel_threads, self._is_cancelled)

    def _read_inputs(self, request: InferenceRequest) -> None:
        """Copy all inputs that are valid, so that the token of an invalid request is known too."""
        tensors = {tensor.name: tensor for tensor in self._model.inputs}
        # Triton has rejected a request that lacks a required input, or has one that the model does not know.
        for sent in request.inputs():
            try:
                self.inputs[sent.name()] = _read(tensors[sent.name()], sent.as_numpy())
            except Exception as error:
                self.problem = self.problem or error.with_traceback(None)

    def _response(self, outputs: Mapping[str, Output]) -> InferenceResponse:
        by_name = {tensor.name: tensor for tensor in self._model.outputs}
        return self._pb.InferenceResponse(
            [self._pb.Tensor(name, _output(by_name[name], value)) for name, value in outputs.items()]
        )

    def _error_response(self, error: BaseException) -> InferenceResponse:
        codes = self._pb.TritonError
        if isinstance(error, asyncio.CancelledError):
            code, message = codes.CANCELLED, CLIENT_CANCELLED
        elif isinstance(error, ClientError):
            code, message = codes.INVALID_ARG, f"{error.status} {error}"
        elif isinstance(error, Unavailable):
            code, message = codes.UNAVAILABLE, f"{error.status} {error}"
        else:
            code, message = codes.INTERNAL, f"500 internal error; see the server's log for request {self.id}"
        return self._pb.InferenceResponse(error=codes(message, code))

    async def _send_last(self, response: InferenceResponse | None) -> None:
        if self._ended:
            return
        self._ended = True
        sending = asyncio.get_running_loop().run_in_executor(self._send_threads, self._send, response, True)
        sending.add_done_callback(lambda _: self.ended.set())
        await asyncio.shield(sending)  # the thread sends it even where this wait is cancelled

    def _send(self, response: InferenceResponse | None, is_last: bool) -> None:
        flags = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
        with self._lock:
            if self._is_final:
                return
            self._is_final = is_last
            if response is None:
                self._sender.send(flags=flags)
            else:
                self._sender.send(response, flags=flags)

    def _is_cancelled(self) -> bool:
        with self._lock:
            return not self._is_final and bool(self._sender.is_cancelled())


def _traceparent(request: InferenceRequest) -> str | None:
    for read in (request.trace().get_context, request.parameters):
        with suppress(ValueError, AttributeError, TypeError):
            if found := json.loads(read() or "{}").get(TRACEPARENT):
                return str(found)
    return None


def _id(request: InferenceRequest) -> str | None:
    try:
        return str(request.request_id())
    except UnicodeDecodeError:  # Triton's HTTP endpoint does not check it
        return None


def _read(tensor: Tensor, array: Array) -> Array | str:
    """Return a copy of an input; text as str."""
    if not tensor.accepts(array):
        raise InvalidField(tensor.name, tensor.mismatch(array))
    if tensor.dtype != "BYTES":
        return array.copy()
    text: bytes = array[0]
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidField(tensor.name, TOO_LONG)
    return text.decode("utf-8", "replace")


def _output(tensor: Tensor, value: Output) -> Array:
    if isinstance(value, str):
        return np.array([value.encode()], np.object_)
    array = np.ascontiguousarray(np.atleast_1d(value), tensor.numpy)
    tensor.check(array)
    return array
