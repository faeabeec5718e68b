"""A complete model repository in which each network is a graph of a dozen nodes.

Models, tensors, batching and configurations are those of an export. Only the four networks are replaced, by graphs that
behave much like the stand-ins: one face is found where the image is skin-colored, the mouth darkens with the loudness
of the speech, and skin-colored pixels are a person. The server starts in a fraction of the time, and a form costs
milliseconds instead of seconds. Tests that check numbers of the networks use the repository of the stand-ins instead.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.triton_config import model_config
from lipsync.mel import PEAK
from lipsync.tensors import CANDIDATES, FACE_SIZE, PERSON, S3FD, SEGMENTATION, WAV2LIP, WAV2LIP_GAN, Model, Tensor

REDDER = 40.0  # gray levels; a pixel with at least this much more red than blue is skin
SMALLEST = 400.0  # pixels; less skin is no face
HALF_WIDTH = 1.8  # standard deviations of the skin's coordinates; an evenly filled ellipse would give 2
QUIET = 0.06  # loudness above which the mouth opens
MOUTH = (68, 48)  # row and column of the middle of the mouth in a face of 96×96


class Graph:
    """Nodes of one ONNX graph, in the order in which they are added."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """Add a node with one output; return the output's name."""
        output = name or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: object, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def save(self, model: Model, path: Path) -> None:
        """Write the graph with the inputs and outputs of the model's table entry."""
        batch = bool(model.max_batch_size)
        graph = helper.make_graph(
            self._nodes,
            model.name,
            [_value(tensor, batch) for tensor in model.inputs],
            [_value(tensor, batch) for tensor in model.outputs],
            self._constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        onnx.save(made, path)


def write(repository: Path) -> None:
    """Write the complete repository into an empty or missing folder."""
    shutil.copytree(model_config.committed(), repository, ignore=shutil.ignore_patterns("model.onnx", "*.json"))
    for model, graph in (
        (S3FD, _detector()),
        (WAV2LIP, _generator(depth=1.0)),
        (WAV2LIP_GAN, _generator(depth=0.7)),
        (SEGMENTATION, _segmenter()),
    ):
        # one name per network: caches distinguish the networks by it
        parameters = {
            "checkpoint": "stand-in",
            "checkpoint_sha256": f"tiny-{model.name}",
            "export": f"tiny-{model.name}",
        }
        model_config.write_one(model, repository, {**parameters, "precision": "fp32"})
        folder = repository / model.name / "1"
        folder.mkdir(exist_ok=True)
        graph.save(model, folder / "model.onnx")


def _detector() -> Graph:
    """Build S3FD's replacement: one box, from the mean and the spread of the skin's coordinates."""
    graph = Graph()
    pixels = graph.add("Cast", "image", to=TensorProto.FLOAT)
    blue, red = (graph.add("Gather", pixels, graph.constant(c, np.int64), axis=3) for c in (0, 2))
    excess = graph.add("Sub", graph.add("Sub", red, blue), graph.constant(REDDER))
    tenth = graph.add("Div", excess, graph.constant(10.0))
    skin = graph.add("Clip", tenth, graph.constant(0.0), graph.constant(1.0))  # [N,H,W]
    mass = graph.add("ReduceSum", skin, graph.constant([1, 2], np.int64), keepdims=0)
    least = graph.add("Max", mass, graph.constant(1.0))
    sides = []
    for axis, other in ((2, 1), (1, 2)):  # x, then y
        profile = graph.add("ReduceSum", skin, graph.constant([other], np.int64), keepdims=0)  # [N,W] or [N,H]
        size = graph.add("Gather", graph.add("Shape", skin), graph.constant(axis, np.int64), axis=0)
        counted = graph.add("Range", graph.constant(0, np.int64), size, graph.constant(1, np.int64))
        places = graph.add("Cast", counted, to=TensorProto.FLOAT)
        mean = _mean(graph, graph.add("Mul", profile, places), least)
        square = _mean(graph, graph.add("Mul", profile, graph.add("Mul", places, places)), least)
        variance = graph.add("Relu", graph.add("Sub", square, graph.add("Mul", mean, mean)))
        half = graph.add("Mul", graph.add("Sqrt", variance), graph.constant(HALF_WIDTH))
        sides.append((graph.add("Sub", mean, half), graph.add("Add", mean, half)))
    (left, right), (top, bottom) = sides
    second = graph.constant([1], np.int64)
    corners = [graph.add("Unsqueeze", side, second) for side in (left, top, right, bottom)]
    box = graph.add("Unsqueeze", graph.add("Concat", *corners, axis=1), second)  # [N,1,4]
    share = graph.add("Div", graph.add("Sub", mass, graph.constant(SMALLEST)), graph.constant(SMALLEST))
    score = graph.add("Clip", share, graph.constant(0.0), graph.constant(0.98))
    rest = CANDIDATES - 1
    graph.add("Pad", box, graph.constant([0, 0, 0, 0, rest, 0], np.int64), name="boxes")
    graph.add("Pad", graph.add("Unsqueeze", score, second), graph.constant([0, 0, 0, rest], np.int64), name="scores")
    return graph


def _mean(graph: Graph, weighted: str, mass: str) -> str:
    return graph.add("Div", graph.add("ReduceSum", weighted, graph.constant([1], np.int64), keepdims=0), mass)


def _generator(depth: float) -> Graph:
    """Build Wav2Lip's replacement: the face itself, darker around the mouth the louder the speech is."""
    graph = Graph()
    loudness = graph.add("ReduceMean", "mel", axes=[1, 2], keepdims=0)  # [N], -PEAK … PEAK
    loudness = graph.add("Add", graph.add("Div", loudness, graph.constant(2 * PEAK)), graph.constant(0.5))
    opened = graph.add("Mul", graph.add("Sub", loudness, graph.constant(QUIET)), graph.constant(2.5 * depth))
    opened = graph.add("Clip", opened, graph.constant(0.0), graph.constant(0.9))
    opened = graph.add("Unsqueeze", opened, graph.constant([1, 2, 3], np.int64))
    kept = graph.add("Sub", graph.constant(1.0), graph.add("Mul", opened, graph.constant(_mouth())))
    face = graph.add("Cast", "face", to=TensorProto.FLOAT)
    graph.add("Cast", graph.add("Mul", face, kept), to=TensorProto.UINT8, name="mouth")
    return graph


def _mouth() -> NDArray[np.float32]:
    """Return the mask of the mouth: FP32 [1,96,96,1] from 0 to 1."""
    rows, columns = np.mgrid[:FACE_SIZE, :FACE_SIZE]
    distance = ((rows - MOUTH[0]) / 8) ** 2 + ((columns - MOUTH[1]) / 14) ** 2
    return np.exp(-distance).astype(np.float32)[None, :, :, None]


def _segmenter() -> Graph:
    """Build the segmentation's replacement: a pixel much redder than blue is a person."""
    graph = Graph()
    pixels = graph.add("Cast", "image", to=TensorProto.FLOAT)
    red, blue = (graph.add("Gather", pixels, graph.constant(c, np.int64), axis=2) for c in (0, 2))
    redder = graph.add("Greater", graph.add("Sub", red, blue), graph.constant(REDDER))
    person = graph.add("Cast", redder, to=TensorProto.INT32)
    graph.add("Mul", person, graph.constant(PERSON, np.int32), name="labels")
    return graph


def _value(tensor: Tensor, batch: bool) -> onnx.ValueInfoProto:
    sizes = [f"{tensor.name}_{place}" if size < 0 else size for place, size in enumerate(tensor.shape)]
    kind = getattr(TensorProto, {"FP32": "FLOAT"}.get(tensor.dtype, tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, kind, ["n", *sizes] if batch else sizes)
