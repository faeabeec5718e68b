"""Triton backend `pytorch`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.pt`, or
`default_model_filename`) and the parameters `INTRA_OP_THREAD_COUNT` and `INTER_OP_THREAD_COUNT`. As with
the native one, inputs are the arguments of `forward`, by name, and outputs are its results, in the config's order.

On a GPU a network whose rows have a fixed size runs from slots, as CUDA graphs (docs/adr/0035). The export itself
decides its precision and memory format (FP16, channels-last).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import triton_python_backend_utils as pb_utils

from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.pytorch.backend import make_executor, set_up_process


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        try:
            set_up_process(args)
            self._executor = make_executor(pb_utils, args)
        except (ValueError, RuntimeError) as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse] | None:
        return self._executor.execute(requests)

    def finalize(self) -> None:
        self._executor.close()
