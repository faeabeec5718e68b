"""Calls to a live Triton with arrays as inputs and outputs."""

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
        """Call a model and return its outputs by name; only those in `outputs` if it is set."""
        requested = None if outputs is None else [InferRequestedOutput(name) for name in outputs]
        result = self.client.infer(
            model,
            [_input(name, array) for name, array in inputs.items()],
            outputs=requested,
            client_timeout=CALL_SECONDS,
        )
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    def batches(self, model: str) -> dict[int, int]:
        """Return how many times the model ran, by batch size, from the statistics of the server.

        The server updates them after it has sent a response, so this polls until they no longer change.
        """
        read = self._batches(model)
        while True:
            time.sleep(0.3)
            again = self._batches(model)
            if again == read:
                return read
            read = again

    def windows(self, model: str) -> int:
        """Return the total number of rows that the model has run, once it no longer changes."""
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


def rejection(call: Caller, model: str, inputs: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Return the status and the message of a call that must fail."""
    try:
        call(model, inputs)
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError(f"{model} accepted a request that it should reject")


def _input(name: str, array: np.ndarray) -> InferInput:
    tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor
