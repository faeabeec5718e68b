"""Calls to one Triton over gRPC: what they carry, and what their statuses mean. Only this room uses tritonclient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup
from tritonclient.utils import InferenceServerException

from avatar_client.access import Token
from avatar_client.region_pool import NewRegion, Region, Registration
from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.tensors import Model, Tensor

from ..errors import AvatarError, Unavailable
from .protocol import ServedModel
from .readiness import fault_of
from .shm_layout import Layout

T = TypeVar("T")

READY_SECONDS = 2.0  # a server that takes longer to say that it is ready is not ready

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
_STILL_SERVES = {"NOT_FOUND", "RESOURCE_EXHAUSTED"}  # other calls


def inputs_of(model: Model, arrays: Sequence[Array], layout: Layout, region: Region | None) -> list[InferInput]:
    """Return a call's inputs: large arrays are copied to the region where there is one."""
    inputs = []
    for tensor, array, span in zip(model.inputs, arrays, layout.inputs, strict=True):
        if region and span:
            sent = InferInput(tensor.name, list(array.shape), tensor.dtype)
            np.copyto(region.array(span.offset, array.shape, tensor.numpy), array)
            sent.set_shared_memory(region.name, span.nbytes, span.offset)
        else:
            sent = message(tensor, array)
        inputs.append(sent)
    return inputs


def message(tensor: Tensor, array: Array) -> InferInput:
    """Return an input that is sent in the message."""
    sent = InferInput(tensor.name, list(array.shape), tensor.dtype)
    sent.set_data_from_numpy(array)
    return sent


class Registry:
    """Implements `RegionRegistry`, over its own connection: it outlives the one whose calls failed."""

    def __init__(self, address: str, token: Token) -> None:
        """Make a registry of the regions at one server."""
        self._client, self._token = connect(address), token

    async def register(self, new: NewRegion) -> Registration:
        """As `RegionRegistry`."""
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
        """As `RegionRegistry`."""
        headers = dict(self._token.metadata())
        try:
            await self._client.unregister_system_shared_memory(name, headers=headers, client_timeout=READY_SECONDS)
        except InferenceServerException as error:
            return _status(error) in _UNREACHABLE  # a server that is gone has released it
        return True

    async def registered(self) -> list[str]:
        """As `RegionRegistry`."""
        headers = dict(self._token.metadata())
        with suppress(InferenceServerException):
            status = await self._client.get_system_shared_memory_status(headers=headers, client_timeout=READY_SECONDS)
            return list(status.regions)
        return []

    async def close(self) -> None:
        """As `RegionRegistry`."""
        await self._client.close()


def connect(address: str) -> InferenceServerClient:
    """Return a connection to one server, which is made at the first call."""
    return InferenceServerClient(address, channel_args=CHANNEL)


async def gather_all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """Wait until all calls have ended; return their results, or raise the first error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    if errors := [each for each in results if isinstance(each, BaseException)]:
        raise errors[0]
    return [each for each in results if not isinstance(each, BaseException)]


async def result_of(call: Awaitable[T], name: str) -> T:
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


def may_have_forgotten(error: Exception) -> bool:
    """Return whether the region may be why a call failed. By the status: the sentences change with Triton's version."""
    return _status_of(error) in {"NOT_FOUND", "INVALID_ARGUMENT"}


def may_lack_version(error: Unavailable) -> bool:
    """Return whether the version that a call named may be why it failed: Triton does not know it, or unloads it."""
    return _status_of(error) in {"NOT_FOUND", "UNAVAILABLE"}


def may_be_repeated(error: Unavailable) -> bool:
    """Return whether another server may be asked at once: everywhere but where the time of the call is over."""
    return _status_of(error) != "DEADLINE_EXCEEDED"


def means_down(error: Unavailable) -> bool:
    """Return whether the server is to get no more calls until it answers."""
    return _status_of(error) not in _STILL_SERVES


def cause_of(error: Exception) -> str:
    """Return what gRPC or Triton said when a call failed, for the log: the last sentence, which names the address."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, InferenceServerException):
        cause = cause.__cause__
    return str(cause.message()).rpartition("last error: ")[2] if cause else "no other cause"


def _status_of(error: Exception) -> str:
    return _status(error.__cause__) if isinstance(error.__cause__, InferenceServerException) else ""


def served_model(config: ModelConfig) -> ServedModel:
    """Return what is used of a configuration."""
    parameters = {name: str(parameter.string_value) for name, parameter in config.parameters.items()}
    on_gpu = any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    return ServedModel(parameters, config.max_batch_size, on_gpu)
