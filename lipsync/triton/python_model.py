"""What the Triton Python models share: requests to arrays within the limits, one call, arrays to responses.

Nothing of Triton is imported here: each model passes on `pb_utils`, as `lipsync.triton.pb_utils` describes it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

import numpy as np

from .. import limits
from ..arrays import Array
from ..errors import InvalidInput
from ..tensors import Model, Tensor
from .pb_utils import InferenceRequest, InferenceResponse, PbUtils

# Inputs in the table's order (None for an optional one that was not sent) to outputs in the table's order.
Compute = Callable[..., Array | tuple[Array, ...]]


class PythonModel:
    """Answers the requests of one Triton Python model with one function."""

    def __init__(self, pb_utils: PbUtils, model: Model, compute: Compute) -> None:
        self._pb = pb_utils
        self._model = model
        self._compute = compute

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        """Return one response per request; a request that fails does not affect the others."""
        return [self._execute_one(request) for request in requests]

    def _execute_one(self, request: InferenceRequest) -> InferenceResponse:
        try:
            inputs = {tensor.name: self._input(request, tensor) for tensor in self._model.inputs}
            limits.check(self._model.name, {name: array for name, array in inputs.items() if array is not None})
            outputs = self._compute(*inputs.values())
        except Exception as error:
            return error_response(self._pb, self._model.name, error)
        arrays = outputs if isinstance(outputs, tuple) else (outputs,)
        requested = request.requested_output_names()
        return self._pb.InferenceResponse(
            [
                self._pb.Tensor(tensor.name, np.ascontiguousarray(array, tensor.numpy))
                for tensor, array in zip(self._model.outputs, arrays, strict=True)
                if tensor.name in requested
            ]
        )

    def _input(self, request: InferenceRequest, tensor: Tensor) -> Array | None:
        sent = self._pb.get_input_tensor_by_name(request, tensor.name)
        if sent is None:
            if tensor.optional:
                return None
            raise InvalidInput(f"{tensor.name}: missing")
        array = sent.as_numpy()
        tensor.check(array)
        return array


def error_response(pb_utils: PbUtils, model: str, error: Exception) -> InferenceResponse:
    """Return the response to a request that failed.

    The caller's mistake (InvalidInput) is answered with its own sentence, as INVALID_ARG. Anything else is a defect:
    the caller gets INTERNAL with the model's name, and the server's log gets the traceback.
    """
    if isinstance(error, InvalidInput):
        triton_error = pb_utils.TritonError(f"{model}: {error}", pb_utils.TritonError.INVALID_ARG)
    else:
        pb_utils.Logger.log_error(f"{model}: {''.join(traceback.format_exception(error))}")
        triton_error = pb_utils.TritonError(f"internal error in {model}", pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse(error=triton_error)
