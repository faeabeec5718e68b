"""Errors of a GPU after which a process is of no more use, and how it ends then.

After such an error CUDA answers every later call of the process with the same error, so its model would answer every
request with an internal error for ever. A process that has ended is noticed (docs/adr/0023), and the server is started
again.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

EXIT_STATUS = 70  # an internal software error, in sysexits.h

# Parts of the messages of PyTorch and onnxruntime. Errors about arguments and missing memory are not among them.
_STICKY = (
    "CUDA error",
    "CUDA failure",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_MAPPING_ERROR",
)
_PASSING = "out of memory"  # CUDA's own message has it, too; the next request may find memory


def is_sticky(error: BaseException) -> bool:
    """Return whether the GPU is lost for this process after `error`."""
    message = str(error)
    if _PASSING in message.lower() or type(error).__name__ == "OutOfMemoryError":
        return False
    return type(error).__name__ == "AcceleratorError" or any(part in message for part in _STICKY)


def end_process(model: str, error: BaseException) -> NoReturn:
    """Write why into the log, and end this process at once.

    `sys.exit` would end one thread only, and a normal end would wait for the GPU.
    """
    reason = str(error).strip().split("\n")[0]
    sys.stderr.write(f"{model}: error: the GPU is lost for this process, which ends to be replaced: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)
