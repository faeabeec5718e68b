"""What the Python-based backends share: run the requests of one call as one batch, and split the outputs again.

Nothing of Triton is imported here, as in `python_model`. A backend wraps its network as a `Runtime` and passes it to
`BatchExecutor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from .. import limits
from ..arrays import Array
from ..errors import InvalidInput
from .backend_config import BackendConfig
from .pb_utils import InferenceRequest, InferenceResponse, PbUtils
from .python_model import error_response
from .run_limits import CpuLimits, RunLimits


class Runtime(Protocol):
    """A loaded network."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of its inputs."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Names of its outputs."""
        ...

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        """Return the requested outputs in their order. After a `large` run the memory that it took is released.

        Raises:
            InvalidInput: the network does not accept these shapes; its message is the answer to the caller.
        """
        ...


def read_inputs(config: BackendConfig, request: InferenceRequest) -> dict[str, Array]:
    """Return a request's inputs by name: views, valid as long as the request.

    Raises:
        InvalidInput: one is missing, or over a limit of the model.
    """
    arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    missing = [name for name in config.inputs if name not in arrays]
    if missing:
        raise InvalidInput(f"{missing[0]}: missing")
    limits.check(config.name, arrays)
    return arrays


def check_names(config: BackendConfig, runtime: Runtime) -> None:
    """Check that the network has every input and output that the config names.

    Raises:
        ValueError: it lacks one of them.
    """
    for kind, names, known in (("input", config.inputs, runtime.inputs), ("output", config.outputs, runtime.outputs)):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"config.pbtxt names {kind} {unknown}, the graph has {list(known)}")


class BatchExecutor:
    """Answers the requests of one network.

    Args:
        pb_utils: Triton's module.
        config: the model's configuration.
        runtime: the network.
        limits: how much one run may take; by default that of a CPU.
    """

    def __init__(
        self, pb_utils: PbUtils, config: BackendConfig, runtime: Runtime, limits: RunLimits | None = None
    ) -> None:
        self._pb, self._config, self._runtime = pb_utils, config, runtime
        self._limits = limits or CpuLimits()

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        """Run all requests as one batch; if that fails, each alone, so that an error stays with its request."""
        if self._config.batched and len(requests) > 1:
            try:
                return self._execute_batch(requests)
            except InvalidInput:
                pass  # each caller gets its own answer below
            except Exception as error:
                self._pb.Logger.log_warn(
                    f"{self._config.name}: a batch of {len(requests)} requests failed, running each alone: {error}"
                )
        return [self._execute_one(request) for request in requests]

    def _execute_batch(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        inputs = [read_inputs(self._config, request) for request in requests]
        names = self._config.inputs
        feeds = {name: np.concatenate([arrays[name] for arrays in inputs]) for name in names}
        requested = [set(request.requested_output_names()) for request in requests]
        outputs = self._run(set.union(*requested), feeds)
        ends = np.cumsum([len(arrays[names[0]]) for arrays in inputs])
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}  # views, no copies
        return [
            self._response({name: parts[name][i] for name in self._config.outputs if name in wanted})
            for i, wanted in enumerate(requested)
        ]

    def _execute_one(self, request: InferenceRequest) -> InferenceResponse:
        try:
            return self._response(self._run(set(request.requested_output_names()), read_inputs(self._config, request)))
        except Exception as error:
            return error_response(self._pb, self._config.name, error)

    def _run(self, requested: set[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name, from as many runs as the limits ask for."""
        names = [name for name in self._config.outputs if name in requested]
        plan = self._limits.plan(feeds)
        count = len(feeds[self._config.inputs[0]]) if self._config.batched else 1
        rows = min(plan.rows or count, count)
        if rows == count:
            return dict(zip(names, self._runtime.run(names, feeds, large=plan.large), strict=True))
        parts = [{name: array[i : i + rows] for name, array in feeds.items()} for i in range(0, count, rows)]
        runs = [self._runtime.run(names, part, large=plan.large) for part in parts]
        return {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*runs, strict=True), strict=True)}

    def close(self) -> None:
        """Do nothing: every request was answered by the call that brought it."""

    def _response(self, outputs: Mapping[str, Array]) -> InferenceResponse:
        return self._pb.InferenceResponse([self._pb.Tensor(name, array) for name, array in outputs.items()])
