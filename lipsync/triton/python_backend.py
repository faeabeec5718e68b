"""What the Python-based backends share: run the requests of one call as one batch, and split the outputs again.

Nothing of Triton is imported here, as in `python_model`. A backend wraps its network as a `Runtime` and passes it to
`BatchExecutor`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import limits
from ..arrays import Array
from ..errors import InvalidInput
from .pb_utils import InferenceRequest, InferenceResponse, PbUtils
from .python_model import error_response

LARGE_BYTES = 8 << 20  # inputs of one run: nine 640×480 images, or 250 faces with their windows


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


class BackendConfig:
    """What a backend needs of a model's configuration.

    Args:
        args: what Triton passes to `initialize`.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.batched = config["max_batch_size"] > 0
        self.inputs: list[str] = [tensor["name"] for tensor in config["input"]]
        self.outputs: list[str] = [tensor["name"] for tensor in config["output"]]
        self._parameters = config.get("parameters", {})
        self._file = config.get("default_model_filename")
        self._folder = Path(args["model_repository"]) / args["model_version"]

    def path(self, default: str) -> Path:
        """Return the path of the model's file: `default_model_filename`, or the backend's own name for it."""
        return self._folder / (self._file or default)

    def parameter(self, name: str) -> str:
        """Return a string of the config's `parameters`, empty where it is not set."""
        return str(self._parameters.get(name, {}).get("string_value", ""))

    def number(self, name: str, default: int) -> int:
        """Return a number of the config's `parameters`.

        Raises:
            ValueError: it is not a number.
        """
        text = self.parameter(name)
        try:
            return int(text) if text else default
        except ValueError:
            raise ValueError(f"parameter {name}: a number expected, got {text!r}") from None

    def check(self, runtime: Runtime) -> None:
        """Check that the network has every input and output that the config names.

        Raises:
            ValueError: it lacks one of them.
        """
        for kind, names, known in (("input", self.inputs, runtime.inputs), ("output", self.outputs, runtime.outputs)):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"config.pbtxt names {kind} {unknown}, the graph has {list(known)}")


class BatchExecutor:
    """Answers the requests of one network."""

    def __init__(self, pb_utils: PbUtils, config: BackendConfig, runtime: Runtime) -> None:
        self._pb, self._config, self._runtime = pb_utils, config, runtime

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
        inputs = [self._inputs(request) for request in requests]
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
            return self._response(self._run(set(request.requested_output_names()), self._inputs(request)))
        except Exception as error:
            return error_response(self._pb, self._config.name, error)

    def _run(self, requested: set[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs by name.

        Large inputs are run row by row: one row occupies all cores, and a network like s3fd takes 650 bytes per pixel,
        so four 4K frames of four callers in one batch would need 20 GB.
        """
        names = [name for name in self._config.outputs if name in requested]
        large = sum(array.nbytes for array in feeds.values()) > LARGE_BYTES
        rows = len(feeds[self._config.inputs[0]]) if large and self._config.batched else 1
        if rows == 1:
            return dict(zip(names, self._runtime.run(names, feeds, large=large), strict=True))
        row_feeds = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(rows)]
        runs = [self._runtime.run(names, each, large=True) for each in row_feeds]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*runs, strict=True), strict=True)}

    def _inputs(self, request: InferenceRequest) -> dict[str, Array]:
        """Return the inputs by name. Raises InvalidInput for one that is missing or over a limit of the model."""
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        missing = [name for name in self._config.inputs if name not in arrays]
        if missing:
            raise InvalidInput(f"{missing[0]}: missing")
        limits.check(self._config.name, arrays)
        return arrays

    def _response(self, outputs: Mapping[str, Array]) -> InferenceResponse:
        return self._pb.InferenceResponse([self._pb.Tensor(name, array) for name, array in outputs.items()])
