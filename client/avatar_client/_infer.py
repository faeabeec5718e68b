"""One call of a model that answers at once: arrays in, arrays out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from . import _messages
from ._connection import Connection
from ._errors import Cancelled
from ._messages import InputTensor, Message, Span
from ._schema import NUMPY, Array, Model
from ._shared_memory import Region, SharedMemoryPool

SHARED_BYTES = 64 << 10  # arrays from this size on go through shared memory; smaller ones travel as fast in the message
ALIGNED = 64  # bytes; a cache line
_FORGOT = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}  # what a region may be that is not known


class InferCaller:
    """Calls over one connection. Any thread may use it."""

    def __init__(self, connection: Connection, memory: SharedMemoryPool | None) -> None:
        self._connection = connection
        self._memory = memory

    def infer(self, model: Model, *given: Array, answer: tuple[int, ...] | None = None) -> list[Array]:
        """One inference, inputs and outputs in the model's order.

        `answer` is the only output's shape, where it is known beforehand: room for it is made in shared memory.

        Raises:
            AvatarClientError: the call failed.
        """
        tries = self._connection.retry_state()
        while True:
            try:
                return self._try(model, given, answer, tries.seconds_left)
            except grpc.FutureCancelledError:
                raise Cancelled("the client was closed") from None
            except grpc.RpcError as error:
                time.sleep(tries.pause(error))

    def _try(self, model: Model, given: Sequence[Array], answer: tuple[int, ...] | None, seconds: float) -> list[Array]:
        begin = time.monotonic()
        room = _room(model, given, answer)
        region = self._memory.acquire(sum(room)) if self._memory and any(room) else None
        if self._memory is None or region is None:
            return self._ask(model, given, seconds)
        try:
            answers = self._ask(model, given, seconds, region, answer)
        except grpc.RpcError as error:
            self._memory.discard(region)
            if error.code() not in _FORGOT:
                raise
        except BaseException:  # Ctrl-C: the server may still be at it
            self._memory.discard(region)
            raise
        else:
            self._memory.release(region)
            return answers
        # what is really invalid is refused again
        answers = self._ask(model, given, max(0.001, seconds - (time.monotonic() - begin)))
        self._memory.invalidate()
        return answers

    def _ask(
        self,
        model: Model,
        given: Sequence[Array],
        seconds: float,
        region: Region | None = None,
        answer: tuple[int, ...] | None = None,
    ) -> list[Array]:
        begin, inputs = 0, []
        for (name, dtype), array in zip(model.inputs.items(), given, strict=True):
            place = _place(region, begin, array.nbytes)
            if region and place:
                np.copyto(region.array(begin, array.shape, NUMPY[dtype]), array)
                begin += _aligned(array.nbytes)
            inputs.append(
                InputTensor(name, dtype, array.shape, place) if place else _messages.array_tensor(name, dtype, array)
            )
        (output, dtype), *_ = model.outputs.items()
        there = _place(region, begin, _nbytes(model, answer)) if answer else None
        wanted: dict[str, Span | None] = dict.fromkeys(model.outputs)
        request = _messages.request(model.name, inputs, wanted | ({output: there} if there else {}))
        response = self._call(request, seconds)
        if region and there:  # copied, for the region is another call's next
            return [region.array(begin, _messages.shape_of(response, output), NUMPY[dtype]).copy()]
        by_name = _messages.arrays(response)
        return [by_name[name] if name in by_name else _missing(response, name) for name in model.outputs]

    def _call(self, request: Message, seconds: float) -> Message:
        call = self._connection.infer(request, seconds)
        try:
            return call.result()
        except BaseException:
            call.cancel()  # does nothing where it has ended; after Ctrl-C it has not
            raise


def _room(model: Model, given: Sequence[Array], answer: tuple[int, ...] | None) -> list[int]:
    """Bytes in shared memory of each array that belongs there."""
    sizes = [array.nbytes for array in given] + [_nbytes(model, answer)]
    return [_aligned(nbytes) for nbytes in sizes if nbytes >= SHARED_BYTES]


def _place(region: Region | None, begin: int, nbytes: int) -> Span | None:
    return Span(region.name, begin, nbytes) if region and nbytes >= SHARED_BYTES else None


def _nbytes(model: Model, answer: tuple[int, ...] | None) -> int:
    (dtype, *_) = model.outputs.values()
    return math.prod(answer) * np.dtype(NUMPY[dtype]).itemsize if answer else 0


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNED) * ALIGNED


def _missing(response: Message, name: str) -> Any:  # noqa: ANN401 - it raises
    return _messages.shape_of(response, name)
