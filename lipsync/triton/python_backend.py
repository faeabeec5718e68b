"""What the Python-based backends share: the requests of one call to one run of a net, and apart again.

It imports nothing of Triton, as `serving`. A backend makes a `Net` around its runtime and hands it to `Batching`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..arrays import Array
from ..errors import InvalidInput
from .python_model import PbUtils, Request, Response, error_response

LARGE_BYTES = 8 << 20  # inputs of one run: nine 640×480 pictures or 250 faces with their windows
THREADS = "EMBEDDED_THREADS"  # set by the launcher; see embedded/command.py


class Runtime(Protocol):
    """A loaded net."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of its inputs."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Names of its outputs."""
        ...

    def run(self, wanted: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        """The wanted outputs in their order; after a `large` run the memory that it took is given back.

        Raises:
            InvalidInput: the net does not take these shapes; whoever sent them is told so.
        """
        ...


class BackendConfig:
    """What a backend needs of a model's configuration.

    Args:
        args: what Triton hands to `initialize`.
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
        """The model's file: `default_model_filename`, or the backend's own name for it."""
        return self._folder / (self._file or default)

    def parameter(self, name: str) -> str:
        """A string of the config's `parameters`, empty where it is not said."""
        return str(self._parameters.get(name, {}).get("string_value", ""))

    def number(self, name: str, default: int) -> int:
        """A number of the config's `parameters`.

        Raises:
            ValueError: it is none.
        """
        text = self.parameter(name)
        try:
            return int(text) if text else default
        except ValueError:
            raise ValueError(f"parameter {name}: a number expected, got {text!r}") from None

    def check(self, net: Runtime) -> None:
        """Hold the config's names to the net's.

        Raises:
            ValueError: the net lacks one of them.
        """
        for kind, names, known in (("input", self.inputs, net.inputs), ("output", self.outputs, net.outputs)):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"config.pbtxt names {kind} {unknown}, the graph has {list(known)}")


class BatchExecutor:
    """Answers the requests of one net."""

    def __init__(self, pb_utils: PbUtils, config: BackendConfig, net: Runtime) -> None:
        self._pb, self._config, self._net = pb_utils, config, net

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """All requests in one run; should that fail, each by itself, so that an error stays with its request."""
        if self._config.batched and len(requests) > 1:
            try:
                return self._answer_together(requests)
            except Exception as error:
                self._pb.Logger.log_warn(
                    f"{self._config.name}: a batch of {len(requests)} requests failed, running each alone: {error}"
                )
        return [self._answer_alone(request) for request in requests]

    def _answer_together(self, requests: Sequence[Request]) -> list[Response]:
        inputs = [_arrays(request) for request in requests]
        names = self._config.inputs
        feeds = {name: np.concatenate([arrays[name] for arrays in inputs]) for name in names}
        wanted = [set(request.requested_output_names()) for request in requests]
        outputs = self._run(set.union(*wanted), feeds)
        ends = np.cumsum([len(arrays[names[0]]) for arrays in inputs])
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}  # views, no copies
        return [
            self._response({name: parts[name][i] for name in self._config.outputs if name in asked})
            for i, asked in enumerate(wanted)
        ]

    def _answer_alone(self, request: Request) -> Response:
        try:
            return self._response(self._run(set(request.requested_output_names()), _arrays(request)))
        except Exception as error:
            return error_response(self._pb, self._config.name, error)

    def _run(self, wanted: set[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. Of large inputs one row at a time: they fill the cores alone, and a net like s3fd
        takes 650 bytes for each pixel, so that four 4K frames of four callers would ask for 20 GB at once."""
        names = [name for name in self._config.outputs if name in wanted]
        missing = [name for name in self._config.inputs if name not in feeds]
        if missing:
            raise InvalidInput(f"{missing[0]}: missing")
        large = sum(array.nbytes for array in feeds.values()) > LARGE_BYTES
        rows = len(feeds[self._config.inputs[0]]) if large and self._config.batched else 1
        if rows == 1:
            return dict(zip(names, self._net.run(names, feeds, large=large), strict=True))
        pieces = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(rows)]
        runs = [self._net.run(names, piece, large=True) for piece in pieces]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*runs, strict=True), strict=True)}

    def _response(self, outputs: Mapping[str, Array]) -> Response:
        return self._pb.InferenceResponse([self._pb.Tensor(name, array) for name, array in outputs.items()])


def _arrays(request: Request) -> dict[str, Any]:
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
