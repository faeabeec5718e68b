"""One call of a model that sends one response: arrays in, arrays out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import grpc
import numpy as np

from . import _messages
from ._connection import Connection
from ._errors import ServerError
from ._kserve import InferRequest, InferResponse
from ._messages import InputTensor, Span
from ._schema import NUMPY, Array, Model
from ._shared_memory import SharedMemoryPool
from .region_pool import Region

SHARED_BYTES = 64 << 10  # arrays of this size and more use shared memory; smaller ones are as fast in the message
ALIGNMENT = 64  # bytes; a cache line
# The status of a call whose region the server does not know. By the status, because the sentences change by version.
_MAY_HAVE_FORGOTTEN = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}


class InferCaller:
    """Makes calls over one connection. Thread-safe."""

    def __init__(self, connection: Connection, memory: SharedMemoryPool | None) -> None:
        self._connection = connection
        self._memory = memory

    def infer(
        self, model: Model, *inputs: Array, output_shape: tuple[int, ...] | None = None, seconds: float
    ) -> list[Array]:
        """Make one inference, with inputs and outputs in the model's order.

        Args:
            model: the model to call.
            inputs: one array per input.
            output_shape: of the only output, where it is known in advance: then it can be written to shared memory.
            seconds: deadline.

        Raises:
            grpc.RpcError, grpc.FutureCancelledError: the call failed.
            AvatarClientError: it cannot be made, or its response cannot be read.
        """
        start = time.monotonic()
        sizes = _shared_sizes(model, inputs, output_shape)
        region = self._memory.acquire(sum(sizes)) if self._memory and any(sizes) else None
        if self._memory is None or region is None:
            return self._send(model, inputs, seconds)
        try:
            outputs = self._send(model, inputs, seconds, region, output_shape)
        except grpc.RpcError as error:
            self._memory.discard(region)
            if error.code() not in _MAY_HAVE_FORGOTTEN:
                raise
        except BaseException:  # Ctrl-C: the server may still work on it
            self._memory.discard(region)
            raise
        else:
            self._memory.release(region)
            return outputs
        # input that is really invalid is rejected a second time
        outputs = self._send(model, inputs, max(0.001, seconds - (time.monotonic() - start)))
        self._memory.invalidate()
        return outputs

    def _send(
        self,
        model: Model,
        inputs: Sequence[Array],
        seconds: float,
        region: Region | None = None,
        output_shape: tuple[int, ...] | None = None,
    ) -> list[Array]:
        offset, tensors = 0, []
        for (name, dtype), array in zip(model.inputs.items(), inputs, strict=True):
            if span := _span(region, offset, array.nbytes):
                _write(region, offset, array, NUMPY[dtype])
                tensors.append(InputTensor(name, dtype, array.shape, span))
                offset += _aligned(array.nbytes)
            else:
                tensors.append(_messages.array_tensor(name, dtype, array))
        (output, dtype), *_ = model.outputs.items()
        output_span = _span(region, offset, _output_bytes(model, output_shape)) if output_shape else None
        requested: dict[str, Span | None] = dict.fromkeys(model.outputs)
        if output_span:
            requested[output] = output_span
        response = self._call(_messages.request(model.name, tensors, requested), seconds)
        if region and output_span:  # copied, because the next call uses the region
            return [region.array(offset, _messages.shape_of(response, output), NUMPY[dtype]).copy()]
        by_name = _messages.arrays(response)
        if missing := [name for name in model.outputs if name not in by_name]:
            raise ServerError(f"{response.model_name} answered without {missing[0]}")
        return [by_name[name] for name in model.outputs]

    def _call(self, request: InferRequest, seconds: float) -> InferResponse:
        call = self._connection.infer(request, seconds)
        try:
            return call.result()
        except BaseException:
            call.cancel()  # after Ctrl-C it has not ended; otherwise this does nothing
            raise


def _shared_sizes(model: Model, inputs: Sequence[Array], output_shape: tuple[int, ...] | None) -> list[int]:
    """Return the bytes in shared memory of each array that goes there."""
    sizes = [array.nbytes for array in inputs] + [_output_bytes(model, output_shape)]
    return [_aligned(nbytes) for nbytes in sizes if nbytes >= SHARED_BYTES]


def _span(region: Region | None, offset: int, nbytes: int) -> Span | None:
    return Span(region.name, offset, nbytes) if region and nbytes >= SHARED_BYTES else None


def _write(region: Region | None, offset: int, array: Array, dtype: type[np.generic]) -> None:
    if region:
        np.copyto(region.array(offset, array.shape, dtype), array)


def _output_bytes(model: Model, output_shape: tuple[int, ...] | None) -> int:
    (dtype, *_) = model.outputs.values()
    return math.prod(output_shape) * np.dtype(NUMPY[dtype]).itemsize if output_shape else 0


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
