"""How a request's tensors reach the server: in the request, in shared memory of the system, or in that of the GPU."""

from __future__ import annotations

import base64
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from avatar_client.access import Token
from avatar_client.region_file import make_file, remove_name
from lipsync.arrays import Array, Batch
from lipsync.tensors import Model

from .cuda_memory import CudaMemory

CALL_SECONDS = 120.0  # limit for one request; the first one of a shape may wait for the search for a kernel
UNREGISTER_TRIES, UNREGISTER_PAUSE = 10, 0.1  # attempts, and seconds between them
_ALIGNMENT = 256  # bytes, between tensors of one region


class Memory(StrEnum):
    """How tensors are sent."""

    NONE = "none"
    SYSTEM = "system"
    CUDA = "cuda"


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        url: its gRPC address.
        token: what it requires for shared memory.
        metrics: address of its metrics, or empty.
        pid: its process, if it was started here.
    """

    url: str
    token: Token
    metrics: str = ""
    pid: int | None = None


class Call(Protocol):
    """A prepared request that can be sent again and again by one thread."""

    def send(self) -> None:
        """Send the request and wait for the response."""

    def output(self) -> Array:
        """Return the first output of the last response."""


class _Region(Protocol):
    """Memory that the server maps, too."""

    def register(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None: ...
    def unregister(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None: ...
    def write(self, offset: int, array: Array) -> None: ...
    def read(self, offset: int, size: int) -> NDArray[np.uint8]: ...
    def close(self) -> None: ...


def connect(url: str) -> InferenceServerClient:
    """Return a client with a connection of its own, without a proxy."""
    return InferenceServerClient(
        url, channel_args=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    )


@contextmanager
def prepared(memory: Memory, server: Server, model: Model, batch: Batch) -> Iterator[Call]:
    """Yield a request with these inputs; its memory and its connection exist as long as the block.

    Raises:
        BenchError: there is no CUDA here.
        InferenceServerException: the server does not accept the memory.
        OSError: the memory cannot be made.
    """
    client = connect(server.url)
    try:
        if memory is Memory.NONE:
            yield _InRequest(client, model, batch)
            return
        sizes = [array.nbytes for array in batch] + [math.prod(_output_shape(model, batch)) * _item(model)]
        offsets = [0]
        for size in sizes:
            offsets.append(-(-(offsets[-1] + size) // _ALIGNMENT) * _ALIGNMENT)
        region: _Region = SystemMemory(offsets[-1]) if memory is Memory.SYSTEM else _CudaRegion(offsets[-1])
        name, headers = f"bench-{secrets.token_hex(16)}", dict(server.token.metadata())
        try:
            region.register(client, name, headers)
            try:
                yield _InRegion(client, model, batch, region, name, offsets)
            finally:
                _unregister(region, client, name, headers)
        finally:
            region.close()
    finally:
        client.close()


def _unregister(region: _Region, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None:
    """Have the server release a region, which it uses for a moment longer than until its last response arrives."""
    for _ in range(UNREGISTER_TRIES - 1):
        try:
            region.unregister(client, name, headers)
            return
        except InferenceServerException:
            time.sleep(UNREGISTER_PAUSE)
    region.unregister(client, name, headers)


class _InRequest:
    def __init__(self, client: InferenceServerClient, model: Model, batch: Batch) -> None:
        self._client, self._model = client, model
        self._inputs = []
        for tensor, array in zip(model.inputs, batch, strict=True):
            self._inputs.append(InferInput(tensor.name, list(array.shape), tensor.dtype))
            self._inputs[-1].set_data_from_numpy(array)

    def send(self) -> None:
        self._result = self._client.infer(self._model.name, self._inputs, client_timeout=CALL_SECONDS)

    def output(self) -> Array:
        output: Array = self._result.as_numpy(self._model.outputs[0].name)
        return output


class _InRegion:
    def __init__(
        self,
        client: InferenceServerClient,
        model: Model,
        batch: Batch,
        region: _Region,
        name: str,
        offsets: list[int],
    ) -> None:
        self._client, self._model, self._region = client, model, region
        self._shape, self._offset = _output_shape(model, batch), offsets[len(batch)]
        self._inputs = []
        for tensor, array, offset in zip(model.inputs, batch, offsets, strict=False):
            region.write(offset, array)
            self._inputs.append(InferInput(tensor.name, list(array.shape), tensor.dtype))
            self._inputs[-1].set_shared_memory(name, array.nbytes, offset)
        self._bytes = math.prod(self._shape) * _item(model)
        self._outputs = [InferRequestedOutput(model.outputs[0].name)]
        self._outputs[0].set_shared_memory(name, self._bytes, self._offset)

    def send(self) -> None:
        self._client.infer(self._model.name, self._inputs, outputs=self._outputs, client_timeout=CALL_SECONDS)

    def output(self) -> Array:
        raw = self._region.read(self._offset, self._bytes)
        return raw.view(self._model.outputs[0].numpy).reshape(self._shape)


class SystemMemory:
    """A file of /dev/shm without a name once the server has mapped it."""

    def __init__(self, size: int) -> None:
        self._file = f"bench-{secrets.token_hex(8)}"
        self._memory = make_file(self._file, size)

    def register(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None:
        """Have the server map the file, and remove its name."""
        client.register_system_shared_memory(name, f"/{self._file}", self._memory.size, headers=headers)
        remove_name(self._file)

    def unregister(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None:
        """Have the server release the memory."""
        client.unregister_system_shared_memory(name, headers=headers)

    def write(self, offset: int, array: Array) -> None:
        """Copy an array into the memory."""
        self._memory[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Return a copy of some bytes."""
        return self._memory[offset : offset + size].copy()

    def close(self) -> None:
        """Remove the file if the server never mapped it."""
        remove_name(self._file)


class _CudaRegion(CudaMemory):
    def register(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None:
        handle = base64.b64encode(self.handle())
        client.register_cuda_shared_memory(name, handle, self.device, self.size, headers=headers)

    def unregister(self, client: InferenceServerClient, name: str, headers: dict[str, str]) -> None:
        client.unregister_cuda_shared_memory(name, headers=headers)


def _output_shape(model: Model, batch: Batch) -> tuple[int, ...]:
    return (len(batch[0]), *model.outputs[0].shape)


def _item(model: Model) -> int:
    return np.dtype(model.outputs[0].numpy).itemsize
