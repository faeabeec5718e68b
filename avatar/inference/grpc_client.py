"""The models over Triton's gRPC. No other file uses tritonclient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient, InferRequestedOutput
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup
from tritonclient.utils import InferenceServerException

from avatar_client.access import Token
from avatar_client.region_pool import NewRegion, Region, Registration
from lipsync import tensors
from lipsync.arrays import Array, Floats, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.tensors import FACE_SIZE, Model, Tensor

from ..errors import AvatarError, Unavailable
from ..options import Generator
from .protocol import GENERATORS, ModelInfo, ServedModel, described_by
from .readiness import CALL_SECONDS, Readiness, fault_of, tiny_inputs
from .shared_memory import SharedMemoryPool
from .shm_layout import Layout, plan_layout

T = TypeVar("T")

READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not ready
REQUIRED_MODELS = (
    tensors.MEL_SPECTROGRAM,
    tensors.S3FD,
    tensors.FACE_NMS,
    tensors.DETECT_FACES,
    tensors.WAV2LIP,
    tensors.SEGMENTATION,
)

CHANNEL = (
    ("grpc.max_send_message_length", -1),  # no limit: frames of any size that the job accepts
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # a proxy that is set for downloads does not lead to Triton
    # a server that restarts is found within a second instead of two minutes
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # the deadlines of calls detect a server that vanished; Triton closes connections whose pings come less than five
    # minutes apart
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

_UNREACHABLE = {"UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"}


class GrpcInferenceClient:
    """Implements `InferenceClient` over one gRPC connection, which is made at the first call and closed by `close`.

    Where Triton is on this machine, large arrays are sent through shared memory. Whether it is, is found out by trying,
    and tried again when the server changes. Every call has a deadline. For one event loop.
    """

    def __init__(
        self,
        address: str,
        timeout: float = 120.0,
        *,
        shared_memory: bool = True,
        token: str = "",
        token_file: Path | None = None,
    ) -> None:
        """Make a client that connects at its first call.

        Args:
            address: host:port of Triton's gRPC.
            timeout: seconds for one inference, including its wait in Triton's queues.
            shared_memory: False sends everything by gRPC.
            token: the token that Triton requires for shared memory. Without the right one, everything is sent by gRPC.
            token_file: a file that holds the token; it is read when the token is needed.
        """
        self._address, self._timeout, self._shared_memory = address, timeout, shared_memory
        self._token = Token(token, token_file)
        self._connection: InferenceServerClient | None = None
        self._pool: SharedMemoryPool | None = None
        self._readiness = Readiness(self._call_tiny)
        self._generators: set[Model] = set()  # those that jobs have used

    async def check_ready(self) -> None:
        """As `InferenceClient`; returns within five seconds. What is found out is remembered for some seconds."""
        await self._readiness.check(self._check_loaded, self._generators)

    async def _check_loaded(self) -> None:
        """Ask the server which models it has; that they answer is another question."""
        calls = [self._client.is_server_ready(client_timeout=READY_SECONDS)]
        calls += [self._client.is_model_ready(model.name, client_timeout=READY_SECONDS) for model in REQUIRED_MODELS]
        ready = await _result(_all(calls), "the models")
        missing = [model.name for model, up in zip(REQUIRED_MODELS, ready[1:], strict=True) if not up]
        if missing or not ready[0]:
            raise Unavailable(f"the models are not ready: {', '.join(missing) or 'the server is starting'}")

    async def model_info(self, generator: Generator) -> ModelInfo:
        """As `InferenceClient`; asked each time, because the server may have been replaced."""
        net = GENERATORS[generator]
        models = described_by(net)
        calls = [self._client.get_model_config(model.name, client_timeout=READY_SECONDS) for model in models]
        responses = await _result(_all(calls), "the models")
        served = [_served(response.config) for response in responses]
        return ModelInfo.of(net, {model.name: each for model, each in zip(models, served, strict=True)})

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `InferenceClient`."""
        (windows,) = await self._infer(tensors.MEL_SPECTROGRAM, audio, np.array([fps]))
        return windows

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As `InferenceClient`."""
        boxes, scores = await self._infer(tensors.DETECT_FACES, frames)
        return boxes, scores

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        """As `InferenceClient`."""
        self._generators.add(GENERATORS[generator])
        shape = (len(windows), FACE_SIZE, FACE_SIZE, 3)
        (mouths,) = await self._infer(GENERATORS[generator], faces, windows, output_shape=shape)
        return mouths

    async def segment(self, image: Images) -> Labels:
        """As `InferenceClient`."""
        (labels,) = await self._infer(tensors.SEGMENTATION, image, output_shape=image.shape[:2])
        return labels

    async def close(self) -> None:
        """As `InferenceClient`; calls in flight raise Unavailable, a later call connects again."""
        self._readiness.failed()
        connection, self._connection = self._connection, None
        pool, self._pool = self._pool, None
        if connection:
            await connection.close()
        if pool:
            await pool.close()

    @property
    def _client(self) -> InferenceServerClient:
        if self._connection is None:
            self._connection = _connect(self._address)
        return self._connection

    async def _infer(self, model: Model, *inputs: Array, output_shape: tuple[int, ...] | None = None) -> list[Array]:
        """Make one inference, with inputs and outputs in the order of the model's tensors.

        `output_shape` is the shape of the only output, where it is known in advance: then it can be written to shared
        memory.
        """
        try:
            outputs = await self._infer_once(model, plan_layout(model, inputs, output_shape), inputs)
        except Unavailable:
            self._readiness.failed()
            raise
        self._readiness.answered(model)
        return outputs

    async def _infer_once(self, model: Model, layout: Layout, inputs: Sequence[Array]) -> list[Array]:
        if self._shared_memory and layout.size and self._pool is None:
            self._pool = SharedMemoryPool(_Registry(self._address, self._token), self._timeout)
        pool = self._pool
        region = await pool.acquire(layout.size) if pool and layout.size else None
        if pool is None or region is None:
            return await self._send(model, inputs, layout)
        try:
            outputs = await self._send(model, inputs, layout, region)
        except (InvalidInput, Unavailable) as error:
            pool.discard(region)
            if not _may_have_forgotten(error):
                raise
        except BaseException:  # cancelled: the server may still work on it
            pool.discard(region)
            raise
        else:
            pool.release(region)
            return outputs
        outputs = await self._send(model, inputs, layout)  # input that is really invalid is rejected a second time
        pool.invalidate()
        return outputs

    async def _call_tiny(self, model: Model) -> None:
        sent = [_message(*pair) for pair in tiny_inputs(model)]
        await _result(self._client.infer(model.name, sent, client_timeout=2 * CALL_SECONDS), model.name)

    async def _send(
        self, model: Model, inputs: Sequence[Array], layout: Layout, region: Region | None = None
    ) -> list[Array]:
        sent = await asyncio.to_thread(_inputs, model, inputs, layout, region)  # copies the frames
        outputs = [InferRequestedOutput(tensor.name) for tensor in model.outputs]
        span = layout.output if region else None
        if region and span:
            outputs[0].set_shared_memory(region.name, span.nbytes, span.offset)
        call = self._client.infer(model.name, sent, outputs=outputs, client_timeout=self._timeout)
        result = await _result(call, model.name)
        if region and span:  # copied, because the next call uses the region
            shape = tuple(result.get_output(model.outputs[0].name).shape)
            return [region.array(span.offset, shape, model.outputs[0].numpy).copy()]
        return [result.as_numpy(tensor.name) for tensor in model.outputs]


def _inputs(model: Model, arrays: Sequence[Array], layout: Layout, region: Region | None) -> list[InferInput]:
    inputs = []
    for tensor, array, span in zip(model.inputs, arrays, layout.inputs, strict=True):
        if region and span:
            sent = InferInput(tensor.name, list(array.shape), tensor.dtype)
            np.copyto(region.array(span.offset, array.shape, tensor.numpy), array)
            sent.set_shared_memory(region.name, span.nbytes, span.offset)
        else:
            sent = _message(tensor, array)
        inputs.append(sent)
    return inputs


def _message(tensor: Tensor, array: Array) -> InferInput:
    """Return an input that is sent in the message."""
    sent = InferInput(tensor.name, list(array.shape), tensor.dtype)
    sent.set_data_from_numpy(array)
    return sent


class _Registry:
    """Implements `RegionRegistry`, over its own connection: it outlives the one whose calls failed."""

    def __init__(self, address: str, token: Token) -> None:
        self._client, self._token = _connect(address), token

    async def register(self, new: NewRegion) -> Registration:
        headers = dict(self._token.metadata())
        call = self._client.register_system_shared_memory(
            new.name, f"/{new.file}", new.size, headers=headers, client_timeout=READY_SECONDS
        )
        try:
            await call
        except InferenceServerException as error:
            return Registration.of_error(_status(error), str(error.message()), with_token=bool(headers))
        return Registration.MAPPED

    async def unregister(self, name: str) -> bool:
        headers = dict(self._token.metadata())
        try:
            await self._client.unregister_system_shared_memory(name, headers=headers, client_timeout=READY_SECONDS)
        except InferenceServerException as error:
            return _status(error) in _UNREACHABLE  # a server that is gone has released it
        return True

    async def registered(self) -> list[str]:
        headers = dict(self._token.metadata())
        with suppress(InferenceServerException):
            status = await self._client.get_system_shared_memory_status(headers=headers, client_timeout=READY_SECONDS)
            return list(status.regions)
        return []

    async def close(self) -> None:
        await self._client.close()


def _connect(address: str) -> InferenceServerClient:
    return InferenceServerClient(address, channel_args=CHANNEL)


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Wait until all calls have ended; return their results, or raise the first error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    if errors := [each for each in results if isinstance(each, BaseException)]:
        raise errors[0]
    return [each for each in results if not isinstance(each, BaseException)]


async def _result(call: Awaitable[T], name: str) -> T:
    """Return a call's result, or raise what its gRPC status means; the server's message stays in the cause."""
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        # `close` cancels the calls in flight, but this task was not cancelled: a stream over it would wait forever
        raise Unavailable(f"{name} cannot be reached: the connection was closed") from None
    except InferenceServerException as error:
        status = _status(error)
        if status == "INVALID_ARGUMENT":
            raise InvalidInput(str(error.message())) from error
        if status == "DEADLINE_EXCEEDED":
            raise Unavailable(f"{name} did not answer in time") from error
        if status in _UNREACHABLE:
            raise Unavailable(f"{name} cannot be reached") from error
        if fault := fault_of(str(error.message())):
            raise fault from error
        raise AvatarError(f"{name} failed") from error


def _status(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _may_have_forgotten(error: Exception) -> bool:
    """Return whether the region may be why a call failed. By the status: the sentences change with Triton's version."""
    cause = error.__cause__
    return isinstance(cause, InferenceServerException) and _status(cause) in {"NOT_FOUND", "INVALID_ARGUMENT"}


def _served(config: ModelConfig) -> ServedModel:
    parameters = {name: str(parameter.string_value) for name, parameter in config.parameters.items()}
    on_gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    return ServedModel(parameters, config.max_batch_size, on_gpu)
