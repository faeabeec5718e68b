"""Which errors cost a process its GPU, and how it ends then."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lipsync.triton import sticky

LOST = [
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously…"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
    RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered"),
    torch.AcceleratorError("an illegal memory access was encountered", 700),
]
PASSING = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: out of memory", 2),
    RuntimeError("The size of tensor a (4) must match the size of tensor b (5)"),
    ValueError("no"),
]


@pytest.mark.parametrize("error", LOST, ids=str)
def test_after_an_error_of_the_context_the_gpu_is_lost(error: Exception) -> None:
    assert sticky.is_sticky(error)


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_missing_memory_and_wrong_shapes_pass(error: Exception) -> None:
    assert not sticky.is_sticky(error)


def test_the_process_ends_at_once_from_any_thread_with_the_reason_in_the_log() -> None:
    script = (
        "import threading\n"
        "from lipsync.triton.sticky import end_process\n"
        "error = RuntimeError('CUDA error: an illegal memory access\\nmore lines')\n"
        "threading.Thread(target=end_process, args=('wav2lip', error)).start()\n"
        "threading.Event().wait()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == sticky.EXIT_STATUS
    assert ended.stderr == (
        "wav2lip: error: the GPU is lost for this process, which ends to be replaced: "
        "CUDA error: an illegal memory access\n"
    )
