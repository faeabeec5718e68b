"""The models behind Triton's gRPC: the only file that knows its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from lipsync import tensors
from lipsync.arrays import Array, Boxes, Floats, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.tensors import FACE_SIZE, Model

from ..errors import AvatarError, Unavailable
from ..options import Generator
from .protocol import GENERATORS, LIPSYNC, Frames, ModelInfo
from .shared_memory import Region, SharedMemoryPool
from .shm_layout import Layout, TensorInput, plan_layout, stacked, validated, write

T = TypeVar("T")

READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not
REQUIRED_MODELS = (
    tensors.MEL_SPECTROGRAM,
    tensors.S3FD,
    tensors.FACE_NMS,
    tensors.DETECT_FACES,
    tensors.FACE_CROP,
    tensors.WAV2LIP,
    tensors.LIPSYNC,
    tensors.SEGMENTATION,
)

CHANNEL = (
    ("grpc.max_send_message_length", -1),  # no limit: frames of any size that the job lets in
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # Triton stands beside us; a proxy set for downloads is not the way to it
    # a server that comes back is found within two seconds instead of two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # a peer that vanished is noticed by the calls' deadlines; Triton hangs up on pings under five minutes apart
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_UNREACHABLE = {"UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"}
_OUTCOME_UNKNOWN = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}  # what was asked for may have been done or not


class GrpcInferenceClient:
    """Implements `Models` over one gRPC connection, which is made at the first call and closed by `close`.

    Where Triton is on this machine, large arrays go through shared memory instead: found out by trying, and again
    when the server changes. Every call has a deadline. To be used from one event loop.
    """

    def __init__(self, address: str, timeout: float = 120.0, *, shared_memory: bool = True) -> None:
        """Nothing is connected yet.

        Args:
            address: host:port of Triton's gRPC.
            timeout: seconds for one inference, waiting in queues included.
            shared_memory: False sends everything by gRPC.
        """
        self._address, self._timeout, self._shared_memory = address, timeout, shared_memory
        self._connection: Any = None
        self._pool: SharedMemoryPool | None = None

    async def check_ready(self) -> None:
        """As `Models`; answers within two seconds."""
        asked = [self._client.is_server_ready(client_timeout=READY_SECONDS)]
        asked += [self._client.is_model_ready(model.name, client_timeout=READY_SECONDS) for model in REQUIRED_MODELS]
        ready = await _answer(_all(asked), "the models")
        missing = [model.name for model, up in zip(REQUIRED_MODELS, ready[1:], strict=True) if not up]
        if missing or not ready[0]:
            raise Unavailable(f"the models are not ready: {', '.join(missing) or 'the server is starting'}")

    async def model_info(self, net: Generator) -> ModelInfo:
        """As `Models`; asked anew each time, for the server may be another one meanwhile."""
        asked = (tensors.S3FD, GENERATORS[net], tensors.SEGMENTATION)
        calls = [self._client.get_model_config(model.name, client_timeout=READY_SECONDS) for model in asked]
        answers = await _answer(_all(calls), "the models")
        configs = {model.name: answer.config for model, answer in zip(asked, answers, strict=True)}
        stand_ins = tuple(name for name, config in configs.items() if _parameter(config, "checkpoint") == "stand-in")
        exports = [_parameter(configs[model.name], "export") for model in (tensors.S3FD, tensors.SEGMENTATION)]
        return ModelInfo(stand_ins, *exports)

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `Models`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Frames) -> tuple[Floats, Floats]:
        """As `Models`."""
        boxes, scores = await self._infer(tensors.DETECT_FACES, frames)
        return boxes, scores

    async def lipsync(self, frames: Frames, boxes: Boxes, windows: Floats, net: Generator) -> Images:
        """As `Models`."""
        answer = (len(windows), FACE_SIZE, FACE_SIZE, 3)
        (mouths,) = await self._infer(LIPSYNC[net], frames, boxes, windows, answer=answer)
        return mouths

    async def segment(self, image: Images) -> Labels:
        """As `Models`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image, answer=image.shape[:2])
        return labels

    async def close(self) -> None:
        """As `Models`; calls under way raise Unavailable, a later one connects anew."""
        connection, self._connection = self._connection, None
        pool, self._pool = self._pool, None
        if connection:
            await connection.close()
        if pool:
            await pool.close()

    @property
    def _client(self) -> Any:  # noqa: ANN401 - tritonclient has no types
        if self._connection is None:
            self._connection = _connect(self._address)
        return self._connection

    async def _infer(self, model: Model, *given: TensorInput, answer: tuple[int, ...] | None = None) -> list[Array]:
        """One inference, inputs and outputs in the order of the model's tensors.

        `answer` is the only output's shape, where it is known beforehand: room for it is made in shared memory.
        """
        layout = plan_layout(model, given, answer)
        if self._shared_memory and layout.size and self._pool is None:
            self._pool = SharedMemoryPool(_Registry(self._address), self._timeout)
        pool = self._pool
        region = await pool.acquire(layout.size) if pool and layout.size else None
        if pool is None or region is None:
            return await self._send(model, given, layout)
        try:
            answers = await self._send(model, given, layout, region)
        except (InvalidInput, Unavailable) as error:
            pool.discard(region)
            if not _may_have_forgotten(error):
                raise
        except BaseException:  # cancelled: the server may still be at it
            pool.discard(region)
            raise
        else:
            pool.release(region)
            return answers
        answers = await self._send(model, given, layout)  # input that is really invalid is refused again
        pool.invalidate()
        return answers

    async def _send(
        self, model: Model, given: Sequence[TensorInput], layout: Layout, region: Region | None = None
    ) -> list[Array]:
        inputs = await asyncio.to_thread(_inputs, model, given, layout, region)  # copies the frames
        outputs = [InferRequestedOutput(tensor.name) for tensor in model.outputs]
        place = layout.answer if region else None
        if region and place:
            outputs[0].set_shared_memory(region.name, place.nbytes, place.offset)
        call = self._client.infer(model.name, inputs, outputs=outputs, client_timeout=self._timeout)
        result = await _answer(call, model.name)
        if region and place:  # copied, for the region is another call's next
            shape = tuple(result.get_output(model.outputs[0].name).shape)
            return [region.array(place.offset, shape, model.outputs[0].numpy).copy()]
        return [result.as_numpy(tensor.name) for tensor in model.outputs]


def _inputs(model: Model, given: Sequence[TensorInput], layout: Layout, region: Region | None) -> list[Any]:
    inputs = []
    for tensor, each, place in zip(model.inputs, given, layout.inputs, strict=True):
        shape = validated(tensor, each).shape
        sent = InferInput(tensor.name, list(shape), tensor.dtype)
        if region and place:
            write(each, region.array(place.offset, shape, tensor.numpy))
            sent.set_shared_memory(region.name, place.nbytes, place.offset)
        else:
            sent.set_data_from_numpy(stacked(each))
        inputs.append(sent)
    return inputs


class _Registry:
    """Implements `avatar.shared.Server`, over a connection of its own: it outlives the one whose calls failed."""

    def __init__(self, address: str) -> None:
        self._client = _connect(address)

    async def register(self, name: str, size: int) -> bool | None:
        try:
            await self._client.register_system_shared_memory(name, f"/{name}", size, client_timeout=READY_SECONDS)
        except InferenceServerException as error:
            return None if _status(error) in _OUTCOME_UNKNOWN else False
        return True

    async def unregister(self, name: str) -> bool:
        try:
            await self._client.unregister_system_shared_memory(name, client_timeout=READY_SECONDS)
        except InferenceServerException as error:
            return _status(error) in _UNREACHABLE  # a server that is gone has let go of it
        return True

    async def registered(self) -> list[str]:
        with suppress(InferenceServerException):
            status = await self._client.get_system_shared_memory_status(client_timeout=READY_SECONDS)
            return list(status.regions)
        return []

    async def close(self) -> None:
        await self._client.close()


def _connect(address: str) -> Any:  # noqa: ANN401 - tritonclient has no types
    return InferenceServerClient(address, channel_args=CHANNEL)


async def _all(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    """Answers of all, or the first's error that failed, when none is under way any more."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


async def _answer(call: Awaitable[T], asked: str) -> T:
    """The answer, or the error that its gRPC status means. What the server says of itself stays in the cause."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        # `close` cancels the calls under way, but nobody cancelled us: a stream over us would wait for ever
        raise Unavailable(f"{asked} cannot be reached: the connection was closed") from None
    except InferenceServerException as error:
        status = _status(error)
        if status == "INVALID_ARGUMENT":
            raise InvalidInput(str(error.message())) from error
        if status == "DEADLINE_EXCEEDED":
            raise Unavailable(f"{asked} did not answer in time") from error
        if status in _UNREACHABLE:
            raise Unavailable(f"{asked} cannot be reached") from error
        raise AvatarError(f"{asked} failed") from error


def _status(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _may_have_forgotten(error: Exception) -> bool:
    """Whether a call may have failed for its region. By the status, for the words change with Triton's version."""
    cause = error.__cause__
    return isinstance(cause, InferenceServerException) and _status(cause) in {"NOT_FOUND", "INVALID_ARGUMENT"}


def _parameter(config: Any, parameter: str) -> str:  # noqa: ANN401 - a protobuf ModelConfig
    return str(config.parameters[parameter].string_value) if parameter in config.parameters else ""
