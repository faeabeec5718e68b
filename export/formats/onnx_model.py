"""Annotate, check, load and run exported ONNX files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime
from onnx import helper

from lipsync import __version__
from lipsync.arrays import Array
from lipsync.tensors import Model, Tensor

from ..checkpoints.provenance import Provenance
from ..errors import ExportError

# onnxruntime 1.19, of Triton 24.10, reads files up to these versions; the container's (26.11) reads newer ones, too.
NEWEST_OPSET, NEWEST_IR = 21, 10

_TYPES = {
    "UINT8": onnx.TensorProto.UINT8,
    "INT32": onnx.TensorProto.INT32,
    "FP32": onnx.TensorProto.FLOAT,
    "FP64": onnx.TensorProto.DOUBLE,
}


def annotate(proto: onnx.ModelProto, model: Model, provenance: Provenance) -> None:
    """Write the table's shapes and the provenance into an ONNX model, in place.

    Raises:
        ExportError: its tensors differ from the table, or NVIDIA's container cannot read it.
    """
    for values, table in ((proto.graph.input, model.inputs), (proto.graph.output, model.outputs)):
        _set_shapes(values, table, model)
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > NEWEST_OPSET or proto.ir_version > NEWEST_IR:
        raise ExportError(
            f"{model.name}: opset {opset}, IR {proto.ir_version}; "
            f"NVIDIA's container reads at most opset {NEWEST_OPSET}, IR {NEWEST_IR}"
        )
    helper.set_model_props(
        proto,
        {
            "checkpoint_sha256": provenance.sha256,
            "stand_in": str(provenance.stand_in).lower(),
            "talking_avatar_version": __version__,
        },
    )


def misplaced_uint8(proto: onnx.ModelProto) -> list[str]:
    """Return the tensors of type UINT8 for which TensorRT rejects the graph, with the node that touches each.

    TensorRT accepts UINT8 in two places only: as an input of the graph whose every consumer is a cast, and as an output
    of the graph that a cast makes.
    """
    inputs, outputs = (
        {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
        for values in (proto.graph.input, proto.graph.output)
    )
    found: list[str] = []
    for node in proto.graph.node:
        touched: list[str] = []
        if node.op_type != "Cast":
            touched = [name for name in (*node.input, *node.output) if name in inputs | outputs]
        elif helper.get_node_attr_value(node, "to") == onnx.TensorProto.UINT8:
            touched = [name for name in node.output if name not in outputs]
        found += [f"{name} ({node.op_type})" for name in touched]
    return found


def session(
    path: Path, providers: Sequence[str | tuple[str, dict[str, str]]] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """Return an onnxruntime session, by default on the CPU, that treats denormals as zero, like the server's.

    Raises:
        ExportError: onnxruntime cannot load the file.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 4  # fatal errors only; all errors are raised anyway
    with _as_export_error(f"{path}: onnxruntime cannot load it"):
        return onnxruntime.InferenceSession(path, options, providers=list(providers))


def run(session: onnxruntime.InferenceSession, model: Model, inputs: Sequence[Array]) -> list[Array]:
    """Run the model and return its outputs; inputs and outputs are in the table's order.

    Raises:
        ExportError: onnxruntime cannot run the graph on these inputs.
    """
    feeds = {tensor.name: array for tensor, array in zip(model.inputs, inputs, strict=True)}
    with _as_export_error(f"{model.name}: onnxruntime cannot run the export"):
        outputs: list[Array] = session.run([tensor.name for tensor in model.outputs], feeds)
    return outputs


@contextmanager
def _as_export_error(message: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's errors have no common base class
        raise ExportError(f"{message}: {error}") from error


def _set_shapes(values: Sequence[onnx.ValueInfoProto], table: Sequence[Tensor], model: Model) -> None:
    have = [(value.name, value.type.tensor_type.elem_type) for value in values]
    want = [(tensor.name, _TYPES[tensor.dtype]) for tensor in table]
    if have != want:
        raise ExportError(f"{model.name}: the graph's tensors are {have}, expected {want} as in the table")
    for value, tensor in zip(values, table, strict=True):
        shape: list[int | str] = [
            f"{tensor.name}_{axis}" if size == -1 else size for axis, size in enumerate(tensor.shape)
        ]
        if model.max_batch_size:
            shape.insert(0, "batch")
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
