"""Calls to a live Triton, in terms of arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

CALL_SECONDS = 120.0


class Caller:
    """One gRPC connection."""

    def __init__(self, client: InferenceServerClient) -> None:
        self.client = client

    def __call__(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The model's outputs by name; only the named ones where `outputs` is given."""
        wanted = None if outputs is None else [InferRequestedOutput(name) for name in outputs]
        result = self.client.infer(
            model, [_input(name, array) for name, array in inputs.items()], outputs=wanted, client_timeout=CALL_SECONDS
        )
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    def batches(self, model: str) -> dict[int, int]:
        """How many times the model ran, by batch size, from the server's own statistics.

        They are written after the answer is sent: read until they stand still.
        """
        read = self._batches(model)
        while True:
            time.sleep(0.3)
            again = self._batches(model)
            if again == read:
                return read
            read = again

    def windows(self, model: str) -> int:
        """Rows that the model has run in all; read until that stands still."""
        return sum(size * count for size, count in self.batches(model).items())

    def _batches(self, model: str) -> dict[int, int]:
        statistics = self.client.get_inference_statistics(model).model_stats[0]
        return {batch.batch_size: batch.compute_infer.count for batch in statistics.batch_stats}


@contextmanager
def caller(grpc_address: str) -> Iterator[Caller]:
    """A connection to the server at `grpc_address`."""
    client = InferenceServerClient(grpc_address)
    try:
        yield Caller(client)
    finally:
        client.close()


def refusal(call: Caller, model: str, inputs: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Status and message of a call that must fail."""
    try:
        call(model, inputs)
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError(f"{model} answered a request that it should refuse")


def _input(name: str, array: np.ndarray) -> InferInput:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor
