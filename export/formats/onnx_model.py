"""An exported ONNX file, whatever it came from: named, described, checked and put in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from lipsync import __version__
from lipsync.tensors import Model, Tensor

from ..errors import ExportError

Array = NDArray[Any]

# The onnxruntime in nvcr.io/nvidia/tritonserver:24.10-py3 (1.19) reads no newer files than these.
NEWEST_OPSET, NEWEST_IR = 21, 10

_TYPES = {
    "UINT8": onnx.TensorProto.UINT8,
    "INT32": onnx.TensorProto.INT32,
    "FP32": onnx.TensorProto.FLOAT,
    "FP64": onnx.TensorProto.DOUBLE,
}


@dataclass(frozen=True)
class Provenance:
    """The checkpoint that an export was made from."""

    sha256: str
    stand_in: bool

    @property
    def kind(self) -> str:
        """`stand-in` or `real`, the value of the config's `checkpoint` parameter."""
        return "stand-in" if self.stand_in else "real"


def annotate(proto: onnx.ModelProto, model: Model, provenance: Provenance) -> None:
    """Describe an ONNX model in place: shapes as in the table, and where it came from.

    Raises:
        ExportError: its tensors are not those of the table, or NVIDIA's container cannot read it.
    """
    for there, table in ((proto.graph.input, model.inputs), (proto.graph.output, model.outputs)):
        _describe(there, table, model)
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > NEWEST_OPSET or proto.ir_version > NEWEST_IR:
        raise ExportError(
            f"{model.name}: opset {opset}, IR {proto.ir_version}; "
            f"NVIDIA's container reads opset {NEWEST_OPSET}, IR {NEWEST_IR} at most"
        )
    helper.set_model_props(
        proto,
        {
            "checkpoint_sha256": provenance.sha256,
            "stand_in": str(provenance.stand_in).lower(),
            "talking_avatar_version": __version__,
        },
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU, as the server's: denormals count as zero.

    Raises:
        ExportError: onnxruntime cannot load the file.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 4  # fatal ones; whatever fails is raised
    with _as_export_error(f"{path}: onnxruntime cannot load it"):
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, model: Model, inputs: Sequence[Array]) -> list[Array]:
    """Run `inputs` (in the table's order) and give back the outputs in the table's order.

    Raises:
        ExportError: the graph cannot work on them.
    """
    feeds = {tensor.name: array for tensor, array in zip(model.inputs, inputs, strict=True)}
    with _as_export_error(f"{model.name}: onnxruntime cannot run the export"):
        outputs: list[Array] = session.run([tensor.name for tensor in model.outputs], feeds)
    return outputs


@contextmanager
def _as_export_error(message: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's errors share no base of their own
        raise ExportError(f"{message}: {error}") from error


def _describe(there: Sequence[onnx.ValueInfoProto], table: Sequence[Tensor], model: Model) -> None:
    have = [(value.name, value.type.tensor_type.elem_type) for value in there]
    want = [(tensor.name, _TYPES[tensor.dtype]) for tensor in table]
    if have != want:
        raise ExportError(f"{model.name}: the graph's tensors are {have}, the table's are {want}")
    for value, tensor in zip(there, table, strict=True):
        shape: list[int | str] = [
            f"{tensor.name}_{axis}" if size == -1 else size for axis, size in enumerate(tensor.shape)
        ]
        if model.max_batch_size:
            shape.insert(0, "batch")
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
