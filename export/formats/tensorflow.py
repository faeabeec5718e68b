"""Export the frozen TensorFlow graph of DeepLab to ONNX as the `segmentation` model, with tf2onnx.

TensorFlow is imported only inside functions: importing it takes seconds, and only this module needs it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Protocol

import onnx
from onnx import helper

from lipsync.arrays import Image, Labels
from lipsync.tensors import SEGMENTATION

from ..checkpoints.provenance import Provenance
from ..errors import ExportError
from . import onnx_model

# tensor names in PixelLib's `xception_pascalvoc.pb`: UINT8 [1,H,W,3] RGB in, integers [1,H,W] out
INPUT, OUTPUT = "ImageTensor:0", "SemanticPredictions:0"
OPSET = 17


class _Node(Protocol):
    name: str


class _GraphDef(Protocol):
    """What is used of TensorFlow's `GraphDef`."""

    node: Sequence[_Node]

    def ParseFromString(self, data: bytes) -> object: ...  # noqa: N802 - protobuf's name


class FrozenGraph:
    """A frozen graph, read from a file.

    Raises:
        ExportError: the file is not a frozen graph of PixelLib's DeepLab.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _quiet_stderr():
            self._graph = _read(self._tensorflow, path)

    def save_onnx(self, path: Path, provenance: Provenance) -> None:
        """Convert the graph and write it to the ONNX file `path`, with the tensors of the table.

        Raises:
            ExportError: tf2onnx cannot convert the graph, or the result has other tensors than the table.
        """
        with _quiet_stderr():
            proto = _convert(self._graph, self._path)
        _spell_out_padding(proto)
        _wrap(proto)
        onnx_model.annotate(proto, SEGMENTATION, provenance)
        onnx.save(proto, path)

    @contextmanager
    def session(self) -> Iterator[Callable[[Image], Labels]]:
        """Yield a function that runs the graph in TensorFlow, from an RGB image to labels, integers [H,W]."""
        with _quiet_stderr(), self._tensorflow.Session(graph=self._tensorflow.Graph()) as session:
            with session.graph.as_default():
                self._tensorflow.import_graph_def(self._graph, name="")

            def run(image: Image) -> Labels:
                labels: Labels = session.run(OUTPUT, {INPUT: image[None]})[0]
                return labels

            yield run

    @cached_property
    def _tensorflow(self) -> ModuleType:
        """TensorFlow's graph interface."""
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        import tensorflow.compat.v1 as tensorflow

        return tensorflow  # type: ignore[no-any-return]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back output to file descriptor 2, and show it only if the block fails with an unexpected error.

    TensorFlow's C++ code logs there, from its import on, at any log level. The message of an ExportError is enough, so
    the output is not shown with one.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except ExportError:
            raise
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def _read(tensorflow: ModuleType, frozen: Path) -> _GraphDef:
    from google.protobuf.message import DecodeError

    graph: _GraphDef = tensorflow.GraphDef()
    try:
        graph.ParseFromString(frozen.read_bytes())
    except DecodeError:
        raise ExportError(f"{frozen}: not a frozen TensorFlow graph, or only a part of one") from None
    names = {node.name for node in graph.node}
    for tensor in (INPUT, OUTPUT):
        if tensor.partition(":")[0] not in names:
            raise ExportError(f"{frozen}: a TensorFlow graph without `{tensor}`, so not PixelLib's DeepLab")
    return graph


def _convert(graph: _GraphDef, frozen: Path) -> onnx.ModelProto:
    import tf2onnx

    try:
        proto, _ = tf2onnx.convert.from_graph_def(graph, input_names=[INPUT], output_names=[OUTPUT], opset=OPSET)
    except Exception as error:  # tf2onnx's passes raise many classes; the operator needs the name of the file
        raise ExportError(f"{frozen}: tf2onnx cannot convert the graph: {error}") from error
    return proto


def _spell_out_padding(proto: onnx.ModelProto) -> None:
    """Replace `auto_pad` by explicit pads in dilated convolutions: onnxruntime rejects the combination.

    TensorFlow dilates only with stride 1, where SAME padding depends on the kernel alone.
    """
    for node in proto.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        dilations, automatic = given.get("dilations", []), given.get("auto_pad", b"NOTSET")
        if node.op_type != "Conv" or max(dilations, default=1) == 1 or automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        totals = [(kernel - 1) * dilation for kernel, dilation in zip(given["kernel_shape"], dilations, strict=True)]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = small + large if automatic == b"SAME_UPPER" else large + small
        kept = [attribute for attribute in node.attribute if attribute.name != "auto_pad"]
        node.ClearField("attribute")
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])


def _wrap(proto: onnx.ModelProto) -> None:
    """Give the converted graph the tensors of the table: no batch axis, labels INT32."""
    (image,), (labels,) = SEGMENTATION.inputs, SEGMENTATION.outputs
    batch = helper.make_tensor("batch_axis", onnx.TensorProto.INT64, [1], [0])
    before = helper.make_node("Unsqueeze", [image.name, batch.name], [INPUT])
    after = (
        helper.make_node("Squeeze", [OUTPUT, batch.name], ["labels_of_one"]),
        helper.make_node("Cast", ["labels_of_one"], [labels.name], to=onnx.TensorProto.INT32),
    )
    nodes = [before, *proto.graph.node, *after]
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(batch)
    proto.graph.ClearField("input")
    proto.graph.input.append(helper.make_tensor_value_info(image.name, onnx.TensorProto.UINT8, None))
    proto.graph.ClearField("output")
    proto.graph.output.append(helper.make_tensor_value_info(labels.name, onnx.TensorProto.INT32, None))
