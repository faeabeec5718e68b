"""What a Python-based backend reads from a model's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_NUMPY: Mapping[str, type[np.generic]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the configuration.

    Attributes:
        name: its name.
        shape: without the batch dimension; -1 is an open dimension.
        dtype: its elements, None for a type that has no fixed size (strings).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None

    @property
    def fixed(self) -> bool:
        """Return whether a row of it has one size in bytes."""
        return self.dtype is not None and all(size > 0 for size in self.shape)


class BackendConfig:
    """What a backend needs of a model's configuration.

    Args:
        args: what Triton passes to `initialize`.
    """

    def __init__(self, args: Mapping[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.max_batch_size: int = config["max_batch_size"]
        self.batched = self.max_batch_size > 0
        self.input_specs = [_spec(tensor) for tensor in config["input"]]
        self.output_specs = [_spec(tensor) for tensor in config["output"]]
        self.inputs = [spec.name for spec in self.input_specs]
        self.outputs = [spec.name for spec in self.output_specs]
        self._parameters = config.get("parameters", {})
        self._file = config.get("default_model_filename")
        self._folder = Path(args["model_repository"]) / args["model_version"]

    @property
    def fixed(self) -> bool:
        """Return whether every row has the same size, so that buffers can be made in advance."""
        return self.batched and all(spec.fixed for spec in (*self.input_specs, *self.output_specs))

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

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """Return one of the allowed words of the config's `parameters`, in lower case; by default the first.

        Raises:
            ValueError: it is another word.
        """
        text = self.parameter(name).lower()
        if text and text not in allowed:
            raise ValueError(f"parameter {name}: {' or '.join(allowed)} expected, got {text!r}")
        return text or allowed[0]


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    kind = _NUMPY.get(tensor["data_type"])
    shape = tuple(int(size) for size in tensor["dims"])
    return TensorSpec(tensor["name"], shape, None if kind is None else np.dtype(kind))
