"""What the Triton Python models share: requests to arrays, one call, arrays to responses.

It imports nothing of Triton: `pb_utils` (`triton_python_backend_utils`, which exists only inside the
server) is handed in by each model.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from ..arrays import Array
from ..errors import InvalidInput
from ..tensors import Model, Tensor

# Triton publishes no types for these: the module `triton_python_backend_utils`, and what it hands out
PbUtils: TypeAlias = Any
Request: TypeAlias = Any
Response: TypeAlias = Any
# inputs in the table's order (None: an optional one that was not sent) to outputs in the table's order
Compute = Callable[..., Array | tuple[Array, ...]]


def use_one_blas_thread() -> None:
    """For a process that multiplies small matrices often, as mel spectrograms do: OpenBLAS's other threads would win
    nothing, and turn round and round between two calls, on a core that a net could have."""
    threadpool_limits(1, user_api="blas")


class PythonModel:
    """Answers the requests of one Triton Python model."""

    def __init__(self, pb_utils: PbUtils, model: Model, compute: Compute) -> None:
        self._pb = pb_utils
        self._model = model
        self._compute = compute

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """One response for each request; a request that fails does not touch the others."""
        return [self._answer_one(request) for request in requests]

    def _answer_one(self, request: Request) -> Response:
        try:
            outputs = self._compute(*(self._input(request, tensor) for tensor in self._model.inputs))
        except Exception as error:
            return error_response(self._pb, self._model.name, error)
        arrays = outputs if isinstance(outputs, tuple) else (outputs,)
        wanted = request.requested_output_names()
        return self._pb.InferenceResponse(
            [
                self._pb.Tensor(tensor.name, np.ascontiguousarray(array, tensor.numpy))
                for tensor, array in zip(self._model.outputs, arrays, strict=True)
                if tensor.name in wanted
            ]
        )

    def _input(self, request: Request, tensor: Tensor) -> Array | None:
        sent = self._pb.get_input_tensor_by_name(request, tensor.name)
        if sent is None:
            if tensor.optional:
                return None
            raise InvalidInput(f"{tensor.name}: missing")
        array: Array = sent.as_numpy()
        tensor.check(array)
        return array


def error_response(pb_utils: PbUtils, model: str, error: Exception) -> Response:
    """The response for a request that failed.

    The caller's mistake (InvalidInput) goes back in its own words, as INVALID_ARG. Anything else is a
    defect: the caller learns only where, as INTERNAL, and the server's log gets the traceback.
    """
    if isinstance(error, InvalidInput):
        answer = pb_utils.TritonError(f"{model}: {error}", pb_utils.TritonError.INVALID_ARG)
    else:
        pb_utils.Logger.log_error(f"{model}: {''.join(traceback.format_exception(error))}")
        answer = pb_utils.TritonError(f"internal error in {model}", pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse(error=answer)
