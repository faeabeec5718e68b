"""The load test on a CPU: the tests check its counts, not its speed."""

from __future__ import annotations

import pytest

from bench.triton import throughput
from embedded.server import Triton
from lipsync.tensors import WAV2LIP_BATCH


def test_every_request_gets_a_response_and_is_counted(triton: Triton) -> None:
    result = throughput.measure(triton.grpc_address, requests=2, batch=2, seconds=0.5)
    assert (result.device, result.backend, result.precision) == ("the CPU", "onnxruntime", "fp32")
    assert result.frames_per_second > 0
    assert sum(result.batches.values()) > 0
    assert set(result.batches) <= {2, 4}  # the request of one caller, or those of both callers
    assert "2 concurrent requests of 2: " in throughput.text(result)


def test_a_batch_that_the_export_does_not_accept_is_rejected_with_a_remedy(triton: Triton) -> None:
    with pytest.raises(ValueError, match=rf"at most {WAV2LIP_BATCH} frames per request.*--profile gpu"):
        throughput.measure(triton.grpc_address, requests=1, batch=WAV2LIP_BATCH + 1, seconds=0.1)
