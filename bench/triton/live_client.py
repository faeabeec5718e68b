"""Live sessions that send speech in real time, and record when each frame arrives.

This client is separate from `avatar_client` for the sake of the measurement. It takes the arrival time of a message on
the event loop, before it decodes anything. `avatar_client.LiveSession` decodes each frame and passes it between threads
first, which would add the caller's own work to the latency of all concurrent sessions.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lipsync.mel import SAMPLE_RATE
from lipsync.tensors import FACE_FILE, LIVE, SESSION_TOKEN

from ..errors import BenchError
from .perf_analyzer import is_local

CHUNK = SAMPLE_RATE // 25  # samples per request, 40 ms
_GRACE_SECONDS = 120.0  # for the face detection, and for frames that are late at the end
_LEAVE_SECONDS = 2.0  # for the server to end a session
_TYPES = {tensor.name: tensor.dtype for tensor in LIVE.inputs}


class LiveError(BenchError):
    """A session failed; the message is that of the server."""


# Expected errors. The last one is a write after the end of the call; the reason of the end is raised too.
_FAILURES = (LiveError, grpc.aio.AioRpcError, asyncio.InvalidStateError)


@dataclass(frozen=True)
class LivePlan:
    """What every session sends: the face, the speech (16 kHz mono), the format of the frames."""

    face: bytes
    speech: NDArray[np.int16]
    format: str = "jpeg"


@dataclass(frozen=True)
class FrameArrival:
    """The index of a frame, and its arrival in seconds after the first sample of its session."""

    index: int
    seconds: float


@dataclass(frozen=True)
class SessionTrace:
    """The frame rate of a session, and its frames in the order of arrival."""

    fps: Fraction
    frames: list[FrameArrival]


class _Call(Protocol):
    """What is used of a gRPC streaming call."""

    async def write(self, request: ModelInferRequest) -> None: ...
    async def done_writing(self) -> None: ...
    async def read(self) -> ModelStreamInferResponse: ...


async def run_sessions(url: str, plan: LivePlan, sessions: int) -> list[SessionTrace]:
    """Run concurrent sessions, each over its own connection.

    Start times are staggered by a fraction of a chunk so that requests do not coincide.

    Raises:
        LiveError: a session failed; the others are ended.
    """
    ready = asyncio.Barrier(sessions)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_session(url, plan, ready, n / sessions)) for n in range(sessions)]
    except ExceptionGroup as group_of_errors:
        if group_of_errors.split(_FAILURES)[1]:
            raise
        raise LiveError(_reason(group_of_errors)) from group_of_errors
    return [task.result() for task in tasks]


async def _session(url: str, plan: LivePlan, ready: asyncio.Barrier, part: float) -> SessionTrace:
    """Run one session; it starts when all are ready, delayed by `part` of a chunk."""
    loop = asyncio.get_running_loop()
    identity = secrets.randbelow(2**62) + 1
    limit = plan.speech.size / SAMPLE_RATE + _GRACE_SECONDS
    async with grpc.aio.insecure_channel(url, options=_settings(url)) as channel:
        server = GRPCInferenceServiceStub(channel)
        call = server.ModelStreamInfer(timeout=limit)
        token = ""
        try:
            await call.write(_request(identity, {FACE_FILE: plan.face, "format": plan.format}, start=True))
            session_info = json.loads(_text(_outputs(await call.read())["session"]))
            token = session_info[SESSION_TOKEN]
            await ready.wait()
            begin = loop.time() + part * CHUNK / SAMPLE_RATE
            async with asyncio.TaskGroup() as group:
                group.create_task(_send_audio(call, identity, token, plan.speech, begin))
                frames = group.create_task(_receive_frames(call, begin))
        except BaseException:
            call.cancel()
            await _end_session(server, identity, token)
            raise
    return SessionTrace(Fraction(session_info["fps"]), frames.result())


async def _send_audio(call: _Call, identity: int, token: str, speech: NDArray[np.int16], begin: float) -> None:
    """Send each chunk at the time of its last sample."""
    loop = asyncio.get_running_loop()
    for first in range(0, speech.size, CHUNK):
        chunk = speech[first : first + CHUNK]
        await asyncio.sleep(begin + (first + chunk.size) / SAMPLE_RATE - loop.time())
        is_last = first + CHUNK >= speech.size
        await call.write(_request(identity, {"pcm": chunk, SESSION_TOKEN: token}, end=is_last))
    await call.done_writing()


async def _receive_frames(call: _Call, begin: float) -> list[FrameArrival]:
    loop = asyncio.get_running_loop()
    arrived = []
    while (response := await call.read()) is not grpc.aio.EOF:
        now = loop.time()
        outputs = _outputs(response)
        if "index" in outputs:
            arrived.append(FrameArrival(int.from_bytes(outputs["index"], "little"), now - begin))
    return arrived


async def _end_session(server: GRPCInferenceServiceStub, identity: int, token: str) -> None:
    """End a session before the end of its speech; otherwise the server keeps it until its idle timeout."""
    with suppress(grpc.aio.AioRpcError):
        inputs = {"pcm": np.zeros(0, np.int16)}
        # without a token the session has not started yet: the first request that has one makes the server demand it
        end = _request(identity, {**inputs, SESSION_TOKEN: token} if token else inputs, end=True)
        call = server.ModelStreamInfer(timeout=_LEAVE_SECONDS)
        await call.write(end)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass


def _settings(url: str) -> list[tuple[str, int]]:
    settings = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    settings.append(("grpc.use_local_subchannel_pool", 1))  # otherwise all channels of a process share one connection
    if is_local(url):
        settings.append(("grpc.enable_http_proxy", 0))
    return settings


def _request(
    identity: int, inputs: Mapping[str, bytes | str | NDArray[np.int16]], *, start: bool = False, end: bool = False
) -> ModelInferRequest:
    request = ModelInferRequest(model_name=LIVE.name, id=str(identity))  # the id appears in the server's log
    request.parameters["sequence_id"].int64_param = identity
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    for name, value in inputs.items():
        if isinstance(value, str):
            data = value.encode()
            raw, size = len(data).to_bytes(4, "little") + data, 1
        else:
            raw, size = bytes(value), len(value)
        request.inputs.add(name=name, datatype=_TYPES[name], shape=[size])
        request.raw_input_contents.append(raw)
    return request


def _outputs(response: ModelStreamInferResponse) -> dict[str, bytes]:
    """Return the outputs by name. Raises LiveError for an error response, and at the end of the stream."""
    if response is grpc.aio.EOF:
        raise LiveError("the server ended the stream")
    if response.error_message:
        raise LiveError(response.error_message)
    names = [output.name for output in response.infer_response.outputs]
    return dict(zip(names, response.infer_response.raw_output_contents, strict=True))


def _text(raw: bytes) -> str:
    return raw[4:].decode()


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the message of the server, if there is one."""
    errors = list(_flat(group))
    messages = [str(error) for error in errors if isinstance(error, LiveError)]
    messages += [str(error.details()) for error in errors if isinstance(error, grpc.aio.AioRpcError)]
    return next(iter(messages), str(errors[0]))


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flat(each)
    else:
        yield error
