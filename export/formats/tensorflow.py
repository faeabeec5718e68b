"""From the frozen TensorFlow graph of DeepLab to the `segmentation` model, through tf2onnx.

TensorFlow is imported inside the functions only: nothing else in this project needs it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from lipsync.tensors import SEGMENTATION

from ..errors import ExportError
from ..files import atomic_write
from ..validation.accuracy import Result
from . import onnx_model
from .onnx_model import Array, Provenance

# what the graph of PixelLib's `xception_pascalvoc.pb` calls them: UINT8 [1,H,W,3] RGB to integers [1,H,W]
INPUT, OUTPUT = "ImageTensor:0", "SemanticPredictions:0"
OPSET = 17
DIFFERENT_PIXELS = 0.001  # share of the labels that may differ: ties decided by a rounding
SIZES = ((96, 128), (101, 67))  # height, width of the pictures that the two graphs are compared on

Graph = Any  # tensorflow.compat.v1.GraphDef
Session = Any  # tensorflow.compat.v1.Session


def export_segmentation(frozen: Path, path: Path, provenance: Provenance) -> list[Result]:
    """Export the frozen graph `frozen` as `segmentation` to the ONNX file `path`; gives back how it compares.

    Raises:
        ExportError: `frozen` is not such a graph, or the file's labels differ from TensorFlow's;
            nothing is left under `path` then.
    """
    with _quiet_stderr():
        tensorflow = _tensorflow()
        graph = _read(tensorflow, frozen)
        proto = _convert(graph, frozen)
        _spell_out_padding(proto)
        _wrap(proto)
        onnx_model.annotate(proto, SEGMENTATION, provenance)
        with atomic_write(path) as temporary, _session(tensorflow, graph) as original:
            onnx.save(proto, temporary)
            converted = onnx_model.session(temporary)
            shares = []
            for size in SIZES:
                picture = _picture(*size)
                want = original.run(OUTPUT, {INPUT: picture[None]})[0]
                (have,) = onnx_model.run(converted, SEGMENTATION, [picture])
                shares.append(_compare(want, have))
    worst, mean = max(shares), float(np.mean(shares))
    bar = 1 - DIFFERENT_PIXELS
    return [Result(provenance.kind, "pictures", len(shares), worst, mean, 1 - mean, 1 - worst, bar)]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what is written to file descriptor 2 until it is known whether anybody needs it.

    TensorFlow's C++ code logs there, from its import on, whatever log level it is given. It is shown
    when the block ends with an error that does not speak for itself.
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


def _tensorflow() -> ModuleType:
    """TensorFlow's graph interface."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    import tensorflow.compat.v1 as tensorflow

    return tensorflow  # type: ignore[no-any-return]


def _read(tensorflow: ModuleType, frozen: Path) -> Graph:
    from google.protobuf.message import DecodeError

    graph = tensorflow.GraphDef()
    try:
        graph.ParseFromString(frozen.read_bytes())
    except DecodeError:
        raise ExportError(f"{frozen}: not a frozen TensorFlow graph, or only a part of one") from None
    names = {node.name for node in graph.node}
    for tensor in (INPUT, OUTPUT):
        if tensor.partition(":")[0] not in names:
            raise ExportError(f"{frozen}: a TensorFlow graph without `{tensor}`, so not PixelLib's DeepLab")
    return graph


def _convert(graph: Graph, frozen: Path) -> onnx.ModelProto:
    import tf2onnx

    try:
        proto, _ = tf2onnx.convert.from_graph_def(graph, input_names=[INPUT], output_names=[OUTPUT], opset=OPSET)
    except Exception as error:  # whatever its many passes raise, the operator needs to know which file it was
        raise ExportError(f"{frozen}: tf2onnx cannot convert the graph: {error}") from error
    return proto


def _session(tensorflow: ModuleType, graph: Graph) -> Session:
    session = tensorflow.Session(graph=tensorflow.Graph())
    with session.graph.as_default():
        tensorflow.import_graph_def(graph, name="")
    return session


def _spell_out_padding(proto: onnx.ModelProto) -> None:
    """Replace `auto_pad` by numbers in dilated convolutions: onnxruntime refuses the two together.

    With stride 1 (TensorFlow dilates nothing else) SAME padding hangs on the kernel alone.
    """
    for node in proto.graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        dilations, automatic = given.get("dilations", []), given.get("auto_pad", b"NOTSET")
        if node.op_type != "Conv" or max(dilations, default=1) == 1 or automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        whole = [(kernel - 1) * dilation for kernel, dilation in zip(given["kernel_shape"], dilations, strict=True)]
        small, large = [size // 2 for size in whole], [size - size // 2 for size in whole]
        pads = small + large if automatic == b"SAME_UPPER" else large + small
        kept = [attribute for attribute in node.attribute if attribute.name != "auto_pad"]
        node.ClearField("attribute")
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])


def _wrap(proto: onnx.ModelProto) -> None:
    """Give the converted graph the table's tensors: no leading 1, labels INT32."""
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


def _compare(want: Array, have: Array) -> float:
    if want.shape != have.shape:
        raise ExportError(f"segmentation: `labels` are {list(have.shape)}, TensorFlow's {list(want.shape)}")
    share = float(np.mean(want != have))
    if share > DIFFERENT_PIXELS:
        raise ExportError(
            f"segmentation: `labels` differ from TensorFlow's in {share:.2%} of the pixels, "
            f"{DIFFERENT_PIXELS:.1%} at most allowed"
        )
    return share


def _picture(height: int, width: int) -> Array:
    """A skin-coloured ellipse before a gradient, RGB."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    gradient = np.stack((60 + 40 * x, 120 + 60 * y, 160 - 50 * x), axis=2)
    return np.where((x**2 + y**2 < 0.4)[..., None], (210, 150, 120), gradient).astype(np.uint8)
