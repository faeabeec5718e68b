"""KServe's protobuf messages: build requests, read responses. Nothing is sent here."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from ._errors import ServerError, from_stream_error
from ._kserve import InferRequest, InferResponse, StreamResponse
from ._schema import NUMPY, Array

_LENGTH = struct.Struct("<I")  # of each element of a BYTES tensor, in front of it


@dataclass(frozen=True)
class Span:
    """Bytes of a registered region of shared memory."""

    region: str
    offset: int
    nbytes: int

    def parameters(self) -> dict[str, str | int]:
        """Return the parameters that put a tensor there."""
        offset = {"shared_memory_offset": self.offset} if self.offset else {}
        return {"shared_memory_region": self.region, "shared_memory_byte_size": self.nbytes, **offset}


@dataclass(frozen=True)
class InputTensor:
    """One input: its bytes, or where in shared memory they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | Span


def text_tensor(name: str, value: str) -> InputTensor:
    """Return a BYTES tensor [1]."""
    data = value.encode()
    return InputTensor(name, "BYTES", (1,), _LENGTH.pack(len(data)) + data)


def file_tensor(name: str, data: bytes) -> InputTensor:
    """Return a UINT8 tensor [n]."""
    return InputTensor(name, "UINT8", (len(data),), data)


def array_tensor(name: str, dtype: str, array: Array) -> InputTensor:
    """Return a tensor of the array's shape, with its bytes in the message."""
    return InputTensor(name, dtype, array.shape, array.tobytes())


def request(
    model: str,
    inputs: Iterable[InputTensor],
    outputs: Mapping[str, Span | None] | None = None,
    parameters: Mapping[str, bool | int | str] | None = None,
) -> InferRequest:
    """Build a ModelInferRequest.

    Args:
        model: its name.
        inputs: in any order.
        outputs: those that are requested (all, where it is None), and where in shared memory each is written.
        parameters: of the request.
    """
    message = pb.ModelInferRequest(model_name=model)
    for sent in inputs:
        tensor = message.inputs.add(name=sent.name, datatype=sent.dtype, shape=sent.shape)
        if isinstance(sent.data, Span):
            _set(tensor, sent.data.parameters())
        else:
            message.raw_input_contents.append(sent.data)
    for name, span in (outputs or {}).items():
        _set(message.outputs.add(name=name), span.parameters() if span else {})
    _set(message, parameters or {})
    built: InferRequest = message
    return built


def _set(message: pb.ModelInferRequest, parameters: Mapping[str, bool | int | str]) -> None:
    """Set the parameters of a request, or of one of its tensors."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        elif isinstance(value, int):
            message.parameters[name].int64_param = value
        else:
            message.parameters[name].string_param = value


def shape_of(response: InferResponse, name: str) -> tuple[int, ...]:
    """Return an output's shape.

    Raises:
        ServerError: the response lacks it.
    """
    for output in response.outputs:
        if output.name == name:
            return tuple(output.shape)
    raise ServerError(f"{response.model_name} answered without {name}")


def arrays(response: InferResponse) -> dict[str, Array]:
    """Return the numeric outputs of a response by name, in memory of their own.

    Raises:
        ServerError: their bytes do not match their shape.
    """
    return {name: _array(name, dtype, shape, raw) for name, dtype, shape, raw in _outputs(response) if dtype != "BYTES"}


def texts(response: InferResponse) -> dict[str, str]:
    """Return the BYTES outputs [1] of a response by name."""
    return {
        name: raw[_LENGTH.size :].decode(errors="replace")
        for name, dtype, _, raw in _outputs(response)
        if dtype == "BYTES"
    }


def unwrap(message: StreamResponse) -> InferResponse:
    """Return the response in a message of a stream.

    Raises:
        AvatarClientError: the message holds an error in its place.
    """
    if message.error_message:
        raise from_stream_error(message.error_message)
    return message.infer_response


def _outputs(response: InferResponse) -> Iterable[tuple[str, str, tuple[int, ...], bytes]]:
    """Yield name, type, shape and bytes of each output; one in shared memory has no bytes in the message."""
    for output, raw in zip(response.outputs, response.raw_output_contents):  # noqa: B905 - the latter may be fewer
        yield output.name, output.datatype, tuple(output.shape), raw


def _array(name: str, dtype: str, shape: tuple[int, ...], raw: bytes) -> Array:
    try:
        return np.frombuffer(bytearray(raw), NUMPY[dtype]).reshape(shape)
    except (KeyError, ValueError) as error:
        raise ServerError(f"the server's {name} cannot be read: {error!r}") from error
