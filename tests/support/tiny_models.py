"""Model repositories that load in half a second."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from embedded.canary import TINY_CALLS

WIDTH = 4


def add_arithmetic(repository: Path, name: str = "arithmetic", *, batch: int = 8, file: str = "") -> Path:
    """Add an onnxruntime model: `x` and `y` FP32 [4] (in batches up to `batch`) to their `sum` and `difference`.

    With `batch` 0 the leading dimension is part of the shape. Return the path of the ONNX file.
    """
    lead: list[int] = [] if batch else [-1]
    config = pb.ModelConfig(name=name, backend="onnxruntime", max_batch_size=batch, default_model_filename=file)
    config.input.extend(pb.ModelInput(name=n, data_type=pb.TYPE_FP32, dims=[*lead, WIDTH]) for n in ("x", "y"))
    config.output.extend(
        pb.ModelOutput(name=n, data_type=pb.TYPE_FP32, dims=[*lead, WIDTH]) for n in ("sum", "difference")
    )
    config.instance_group.add(count=1)
    if batch:
        config.dynamic_batching.max_queue_delay_microseconds = 0
    path = write(repository, config) / (file or "model.onnx")
    onnx.save(_arithmetic(), path)
    return path


def add_rows(repository: Path, name: str = "rows", *, batch: int = 8) -> None:
    """Add an onnxruntime model: `x` FP32 [-1] to `rows` INT64 [1], the number of rows in the run of this row."""
    config = pb.ModelConfig(name=name, backend="onnxruntime", max_batch_size=batch)
    config.input.add(name="x", data_type=pb.TYPE_FP32, dims=[-1])
    config.output.add(name="rows", data_type=pb.TYPE_INT64, dims=[1])
    config.instance_group.add(count=1)
    nodes = [
        helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "one"], ["shape"], axis=0),
        helper.make_node("Expand", ["count", "shape"], ["rows"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "w"])
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["n", 1])
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "rows", [x], [rows], [one])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        write(repository, config) / "model.onnx",
    )


def add_face_nms(repository: Path, source: str) -> Path:
    """Add a Python model with the name and the inputs of `face_nms`, which the watcher calls; return the repository."""
    config = pb.ModelConfig(name="face_nms", backend="python")
    for tensor in TINY_CALLS["face_nms"]:
        config.input.add(name=tensor.name, data_type=pb.TYPE_FP32, dims=[-1] * len(tensor.shape))
    config.output.add(name="y", data_type=pb.TYPE_FP32, dims=[-1])
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    (write(repository, config) / "model.py").write_text(source)
    return repository


def add_python(repository: Path, name: str, source: str) -> Path:
    """Add a Python model with one input and one output, and return the path of its model.py."""
    config = pb.ModelConfig(name=name, backend="python")
    config.input.add(name="x", data_type=pb.TYPE_FP32, dims=[-1])
    config.output.add(name="y", data_type=pb.TYPE_FP32, dims=[-1])
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    path = write(repository, config) / "model.py"
    path.write_text(source)
    return path


def write(repository: Path, config: pb.ModelConfig) -> Path:
    """Write the config of a model, and return its version folder."""
    version = repository / config.name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    return version


def _arithmetic() -> onnx.ModelProto:
    def tensor(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH])

    nodes = [helper.make_node("Add", ["x", "y"], ["sum"]), helper.make_node("Sub", ["x", "y"], ["difference"])]
    graph = helper.make_graph(nodes, "arithmetic", [tensor("x"), tensor("y")], [tensor("sum"), tensor("difference")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
