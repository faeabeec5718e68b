"""Triton backend `onnxruntime`, served by the Python backend: NVIDIA's wheel carries no native one.

It takes the native backend's names, so that one repository serves both: the file (`model.onnx`, or
`default_model_filename`) and the parameters `intra_op_thread_count` and `inter_op_thread_count`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lipsync.errors import InvalidInput
from lipsync.serving import Array, Request, Response, failure

DEFAULT_FILE = "model.onnx"
LARGE_BYTES = 8 << 20  # inputs of one run: nine 640×480 pictures or 250 faces with their windows
THREADS = "EMBEDDED_THREADS"  # set by the launcher; see embedded/command.py


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._name = args["model_name"]
        self._batched = config["max_batch_size"] > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        folder = Path(args["model_repository"]) / args["model_version"]
        path = folder / (config.get("default_model_filename") or DEFAULT_FILE)
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} is missing")
        self._session = onnxruntime.InferenceSession(path, _options(config), providers=["CPUExecutionProvider"])
        self._give_back = onnxruntime.RunOptions()  # else the session keeps the most that it ever needed
        self._give_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        _check("input", self._inputs, self._session.get_inputs())
        _check("output", self._outputs, self._session.get_outputs())

    def execute(self, requests: Sequence[Request]) -> list[Response]:
        """All requests in one run; should that fail, each by itself, so that an error stays with its request."""
        if self._batched and len(requests) > 1:
            try:
                return self._answer_together(requests)
            except Exception as error:
                pb_utils.Logger.log_warn(
                    f"{self._name}: a batch of {len(requests)} requests failed, running each alone: {error}"
                )
        return [self._answer_alone(request) for request in requests]

    def _answer_together(self, requests: Sequence[Request]) -> list[Response]:
        inputs = [self._arrays(request) for request in requests]
        feeds = {name: np.concatenate([arrays[name] for arrays in inputs]) for name in self._inputs}
        wanted = [set(request.requested_output_names()) for request in requests]
        outputs = self._run(set.union(*wanted), feeds)
        ends = np.cumsum([len(arrays[self._inputs[0]]) for arrays in inputs])
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}  # views, no copies
        return [
            _response({name: parts[name][i] for name in self._outputs if name in names})
            for i, names in enumerate(wanted)
        ]

    def _answer_alone(self, request: Request) -> Response:
        try:
            return _response(self._run(set(request.requested_output_names()), self._arrays(request)))
        except InvalidArgument as error:  # shapes that the graph does not take
            return failure(pb_utils, self._name, InvalidInput(_sentence(error)))
        except Exception as error:
            return failure(pb_utils, self._name, error)

    def _arrays(self, request: Request) -> dict[str, Array]:
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _run(self, wanted: set[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. Of large inputs one row at a time: they fill the cores alone, and a net like s3fd
        takes 650 bytes for each pixel, so that four 4K frames of four callers would ask for 20 GB at once."""
        names = [name for name in self._outputs if name in wanted]
        is_large = sum(array.nbytes for array in feeds.values()) > LARGE_BYTES
        options = self._give_back if is_large else None
        rows = len(feeds[self._inputs[0]]) if is_large and self._batched else 1
        if rows == 1:
            return dict(zip(names, self._session.run(names, feeds, options), strict=True))
        pieces = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(rows)]
        runs = [self._session.run(names, piece, options) for piece in pieces]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*runs, strict=True), strict=True)}


def _options(config: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _parameter(config, "intra_op_thread_count", int(os.environ.get(THREADS, "0")))
    options.inter_op_num_threads = _parameter(config, "inter_op_thread_count", 1)
    options.log_severity_level = 3  # errors; warnings about the graph belong to the exporter
    # idle threads of one model must not spin on the cores that another one needs
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # a net of mostly zero weights makes denormals, which slow a CPU ten times
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _parameter(config: Mapping[str, Any], name: str, default: int) -> int:
    return int(config.get("parameters", {}).get(name, {}).get("string_value") or default)


def _check(kind: str, names: Sequence[str], tensors: Iterable[onnxruntime.NodeArg]) -> None:
    known = [tensor.name for tensor in tensors]
    if unknown := [name for name in names if name not in known]:
        raise pb_utils.TritonModelException(f"config.pbtxt names {kind} {unknown}, the graph has {known}")


def _response(outputs: Mapping[str, Array]) -> Response:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def _sentence(error: Exception) -> str:
    """`[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : text` to `text`, its first line."""
    return str(error).split(" : ", 3)[-1].splitlines()[0]
