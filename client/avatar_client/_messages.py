"""KServe's protobuf messages: requests built, answers read. Nothing is sent here."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from ._errors import ServerError, from_stream_error
from ._schema import NUMPY, Array

Message = Any  # a protobuf of tritonclient's, which has no types
_LENGTH = struct.Struct("<I")  # of each element of a BYTES tensor, in front of it


@dataclass(frozen=True)
class Span:
    """Bytes of a registered region of shared memory."""

    region: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class InputTensor:
    """One input: its bytes, or where in shared memory they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | Span


def text_tensor(name: str, value: str) -> InputTensor:
    """A BYTES tensor [1]."""
    data = value.encode()
    return InputTensor(name, "BYTES", (1,), _LENGTH.pack(len(data)) + data)


def file_tensor(name: str, data: bytes) -> InputTensor:
    """A UINT8 tensor [n]."""
    return InputTensor(name, "UINT8", (len(data),), data)


def array_tensor(name: str, dtype: str, array: Array) -> InputTensor:
    """A tensor of the array's shape, its bytes in the message."""
    return InputTensor(name, dtype, array.shape, array.tobytes())


def request(
    model: str,
    inputs: Iterable[InputTensor],
    outputs: Mapping[str, Span | None] | None = None,
    parameters: Mapping[str, bool | int] | None = None,
) -> Message:
    """A ModelInferRequest. `outputs`: those that are wanted (all, where it is None), and where in shared memory."""
    made = pb.ModelInferRequest(model_name=model)
    for sent in inputs:
        tensor = made.inputs.add(name=sent.name, datatype=sent.dtype, shape=sent.shape)
        if isinstance(sent.data, Span):
            _put(tensor.parameters, sent.data)
        else:
            made.raw_input_contents.append(sent.data)
    for name, place in (outputs or {}).items():
        wanted = made.outputs.add(name=name)
        if place:
            _put(wanted.parameters, place)
    for name, value in (parameters or {}).items():
        if isinstance(value, bool):
            made.parameters[name].bool_param = value
        else:
            made.parameters[name].int64_param = value
    return made


def _put(parameters: Any, place: Span) -> None:  # noqa: ANN401 - a protobuf map
    parameters["shared_memory_region"].string_param = place.region
    parameters["shared_memory_byte_size"].int64_param = place.nbytes
    if place.offset:
        parameters["shared_memory_offset"].int64_param = place.offset


def shape_of(response: Message, name: str) -> tuple[int, ...]:
    """An output's shape.

    Raises:
        ServerError: it is not there.
    """
    for output in response.outputs:
        if output.name == name:
            return tuple(output.shape)
    raise ServerError(f"{response.model_name} answered without {name}")


def arrays(response: Message) -> dict[str, Array]:
    """The numeric outputs of a ModelInferResponse by name, in memory of their own.

    Raises:
        ServerError: their bytes do not fit their shape.
    """
    return {name: _array(name, dtype, shape, raw) for name, dtype, shape, raw in _outputs(response) if dtype != "BYTES"}


def texts(response: Message) -> dict[str, str]:
    """The BYTES outputs [1] of a ModelInferResponse by name."""
    return {
        name: raw[_LENGTH.size :].decode(errors="replace")
        for name, dtype, _, raw in _outputs(response)
        if dtype == "BYTES"
    }


def answer(message: Message) -> Message:
    """The ModelInferResponse in a ModelStreamInferResponse.

    Raises:
        AvatarClientError: it holds an error in its place.
    """
    if message.error_message:
        raise from_stream_error(message.error_message)
    return message.infer_response


def _outputs(response: Message) -> Iterable[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type, shape and bytes of each output; one in shared memory has none here."""
    for output, raw in zip(response.outputs, response.raw_output_contents):  # noqa: B905 - the latter may be fewer
        yield output.name, output.datatype, tuple(output.shape), raw


def _array(name: str, dtype: str, shape: tuple[int, ...], raw: bytes) -> Array:
    try:
        return np.frombuffer(bytearray(raw), NUMPY[dtype]).reshape(shape)
    except (KeyError, ValueError) as error:
        raise ServerError(f"the server's {name} cannot be read: {error!r}") from error
