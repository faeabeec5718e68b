"""The models behind Triton's gRPC: the only file that knows its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.tensors import Model

from .errors import AvatarError, Unavailable
from .models import Floats, Pictures
from .options import Net

T = TypeVar("T")

READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not
NEEDED = (
    tensors.MEL_SPECTROGRAM,
    tensors.S3FD,
    tensors.FACE_NMS,
    tensors.DETECT_FACES,
    tensors.FACE_CROP,
    tensors.WAV2LIP,
    tensors.LIPSYNC,
    tensors.SEGMENTATION,
)
GENERATORS = {Net.WAV2LIP: tensors.WAV2LIP, Net.WAV2LIP_GAN: tensors.WAV2LIP_GAN}
LIPSYNC = {Net.WAV2LIP: tensors.LIPSYNC, Net.WAV2LIP_GAN: tensors.LIPSYNC_GAN}

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

_AWAY = {"UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"}


class TritonModels:
    """Implements `Models` over one gRPC connection, which is made at the first call and closed by `close`.

    Every call has a deadline. To be used from one event loop.
    """

    def __init__(self, address: str, timeout: float = 120.0) -> None:
        """`address`: host:port of Triton's gRPC; `timeout`: seconds for one inference, waiting in queues included."""
        self._address, self._timeout = address, timeout
        self._connection: Any = None

    async def check_ready(self) -> None:
        """As `Models`; answers within two seconds."""
        asked = [self._client.is_server_ready(client_timeout=READY_SECONDS)]
        asked += [self._client.is_model_ready(model.name, client_timeout=READY_SECONDS) for model in NEEDED]
        ready = await _answer(_all(asked), "the models")
        missing = [model.name for model, up in zip(NEEDED, ready[1:], strict=True) if not up]
        if missing or not ready[0]:
            raise Unavailable(f"the models are not ready: {', '.join(missing) or 'the server is starting'}")

    async def stand_ins(self, net: Net) -> Sequence[str]:
        """As `Models`; asked anew each time, for the server may be another one meanwhile."""
        with_checkpoint = (tensors.S3FD, GENERATORS[net], tensors.SEGMENTATION)
        asked = [self._client.get_model_config(model.name, client_timeout=READY_SECONDS) for model in with_checkpoint]
        answers = await _answer(_all(asked), "the models")
        pairs = zip(with_checkpoint, answers, strict=True)
        return tuple(model.name for model, answer in pairs if _is_stand_in(answer.config))

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `Models`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Pictures) -> tuple[Floats, Floats]:
        """As `Models`."""
        boxes, scores = await self._infer(tensors.DETECT_FACES, frames)
        return boxes, scores

    async def lipsync(self, frames: Pictures, boxes: NDArray[np.int32], windows: Floats, net: Net) -> Pictures:
        """As `Models`."""
        (mouths,) = await self._infer(LIPSYNC[net], frames, boxes, windows)
        return mouths

    async def segment(self, image: Pictures) -> NDArray[np.int32]:
        """As `Models`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image)
        return labels

    async def close(self) -> None:
        """As `Models`; calls under way raise Unavailable, a later one connects anew."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    @property
    def _client(self) -> Any:  # noqa: ANN401 - tritonclient has no types
        if self._connection is None:
            self._connection = InferenceServerClient(self._address, channel_args=CHANNEL)
        return self._connection

    async def _infer(self, model: Model, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """One inference, inputs and outputs in the order of the model's tensors."""
        inputs = await asyncio.to_thread(_inputs, model, arrays)  # copies the frames
        outputs = [InferRequestedOutput(tensor.name) for tensor in model.outputs]
        call = self._client.infer(model.name, inputs, outputs=outputs, client_timeout=self._timeout)
        result = await _answer(call, model.name)
        return [result.as_numpy(tensor.name) for tensor in model.outputs]


def _inputs(model: Model, arrays: Sequence[NDArray[Any]]) -> list[Any]:
    inputs = []
    for tensor, array in zip(model.inputs, arrays, strict=True):
        if not tensor.accepts(array):
            raise InvalidInput(f"{tensor.name}: {tensor.dtype} {list(tensor.shape)} expected, got {list(array.shape)}")
        inputs.append(InferInput(tensor.name, list(array.shape), tensor.dtype).set_data_from_numpy(array))
    return inputs


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
        status = str(error.status()).removeprefix("StatusCode.")
        if status == "INVALID_ARGUMENT":
            raise InvalidInput(str(error.message())) from error
        if status == "DEADLINE_EXCEEDED":
            raise Unavailable(f"{asked} did not answer in time") from error
        if status in _AWAY:
            raise Unavailable(f"{asked} cannot be reached") from error
        raise AvatarError(f"{asked} failed") from error


def _is_stand_in(config: Any) -> bool:  # noqa: ANN401 - a protobuf ModelConfig
    return "checkpoint" in config.parameters and config.parameters["checkpoint"].string_value == "stand-in"
