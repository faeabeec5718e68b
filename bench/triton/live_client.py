"""Live sessions that speak at the pace of speech, and note when each frame comes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lipsync.mel import SAMPLE_RATE
from lipsync.tensors import FACE_FILE, LIVE

from .perf_analyzer import is_local

PIECE = SAMPLE_RATE // 25  # samples of one request, 40 ms
_GRACE_SECONDS = 120.0  # for the face to be found, and for what is behind when the speech is over
_LEAVE_SECONDS = 2.0  # for the server to take a goodbye
_TYPES = {tensor.name: tensor.dtype for tensor in LIVE.inputs}


class LiveError(Exception):
    """A session failed; the message is the server's."""


# what goes wrong without a defect here; the last is a request after the end of the call, and why it ended is told too
_FAILURES = (LiveError, grpc.aio.AioRpcError, asyncio.InvalidStateError)


@dataclass(frozen=True)
class Plan:
    """What every session does: this face, this speech (16 kHz mono), frames in this format."""

    face: bytes
    speech: NDArray[np.int16]
    format: str = "jpeg"


@dataclass(frozen=True)
class Arrived:
    """One frame: its number, and seconds since its session's first sample, by the clock, when it came."""

    index: int
    seconds: float


@dataclass(frozen=True)
class Spoken:
    """What one session gave: frames a second of the video, and its frames in the order in which they came."""

    fps: Fraction
    frames: list[Arrived]


async def speak(url: str, plan: Plan, sessions: int) -> list[Spoken]:
    """So many sessions that begin to speak at once, each over a connection of its own.

    They are a part of a piece apart, so that their pieces do not come at the same moments.

    Raises:
        LiveError: one of them failed; the others are ended.
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


async def _session(url: str, plan: Plan, ready: asyncio.Barrier, part: float) -> Spoken:
    """One session; it speaks when all are ready, by `part` of a piece later than the first of them."""
    loop = asyncio.get_running_loop()
    identity = secrets.randbelow(2**62) + 1
    limit = plan.speech.size / SAMPLE_RATE + _GRACE_SECONDS
    async with grpc.aio.insecure_channel(url, options=_settings(url)) as channel:
        server = GRPCInferenceServiceStub(channel)
        call = server.ModelStreamInfer(timeout=limit)
        try:
            await call.write(_request(identity, {FACE_FILE: plan.face, "format": plan.format}, start=True))
            about = json.loads(_text(_outputs(await call.read())["session"]))
            await ready.wait()
            begin = loop.time() + part * PIECE / SAMPLE_RATE
            async with asyncio.TaskGroup() as group:
                group.create_task(_say(call, identity, plan.speech, begin))
                frames = group.create_task(_listen(call, begin))
        except BaseException:
            call.cancel()
            await _leave(server, identity)
            raise
    return Spoken(Fraction(about["fps"]), frames.result())


async def _say(call: Any, identity: int, speech: NDArray[np.int16], begin: float) -> None:  # noqa: ANN401
    """Each piece when its last sample would have been spoken."""
    loop = asyncio.get_running_loop()
    for first in range(0, speech.size, PIECE):
        piece = speech[first : first + PIECE]
        await asyncio.sleep(begin + (first + piece.size) / SAMPLE_RATE - loop.time())
        is_last = first + PIECE >= speech.size
        await call.write(_request(identity, {"pcm": piece}, end=is_last))
    await call.done_writing()


async def _listen(call: Any, begin: float) -> list[Arrived]:  # noqa: ANN401
    loop = asyncio.get_running_loop()
    arrived = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        now = loop.time()
        given = _outputs(answer)
        if "index" in given:
            arrived.append(Arrived(int.from_bytes(given["index"], "little"), now - begin))
    return arrived


async def _leave(server: GRPCInferenceServiceStub, identity: int) -> None:
    """End a session before its speech is over; else the server keeps it until nothing was heard of it for a while."""
    with suppress(grpc.aio.AioRpcError):
        end = _request(identity, {"pcm": np.zeros(0, np.int16)}, end=True)
        call = server.ModelStreamInfer(timeout=_LEAVE_SECONDS)
        await call.write(end)
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass


def _settings(url: str) -> list[tuple[str, int]]:
    settings = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    settings.append(("grpc.use_local_subchannel_pool", 1))  # or gRPC lets all of one process share a connection
    if is_local(url):
        settings.append(("grpc.enable_http_proxy", 0))
    return settings


def _request(
    identity: int, inputs: Mapping[str, bytes | str | NDArray[np.int16]], *, start: bool = False, end: bool = False
) -> ModelInferRequest:
    request = ModelInferRequest(model_name=LIVE.name, id=str(identity))  # which the server's log then names
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


def _outputs(answer: ModelStreamInferResponse) -> dict[str, bytes]:
    """Raises LiveError for an answer that is an error, and for the stream's end."""
    if answer is grpc.aio.EOF:
        raise LiveError("the server ended the stream")
    if answer.error_message:
        raise LiveError(answer.error_message)
    names = [output.name for output in answer.infer_response.outputs]
    return dict(zip(names, answer.infer_response.raw_output_contents, strict=True))


def _text(raw: bytes) -> str:
    return raw[4:].decode()


def _reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The server's own words, where it said some."""
    errors = list(_flat(group))
    said = [str(error) for error in errors if isinstance(error, LiveError)]
    said += [str(error.details()) for error in errors if isinstance(error, grpc.aio.AioRpcError)]
    return next(iter(said), str(errors[0]))


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _flat(each)
    else:
        yield error
