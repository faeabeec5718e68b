"""A model repository of one variant, exported on a machine that has PyTorch and no TensorFlow.

`python -m export models` needs TensorFlow for the segmentation, and compares every export with its network before it
writes it. Here the segmentation is a graph of five nodes, and the golden data is the judge, behind the live server.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from export.build.variant_builder import VariantBuilder
from export.build.versions import RECORD_FILE
from export.checkpoints.load import load_s3fd, load_wav2lip
from export.checkpoints.provenance import Provenance
from export.checkpoints.registry import S3FD_FILE, WAV2LIP_FILE
from export.networks import random_weights
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.triton_config import model_config
from export.variants import ONNX_FP32, Profile, Variant
from lipsync.tensors import (
    LIPSYNC_GAN,
    LIVE_NETWORKS,
    MODELS,
    PERSON,
    S3FD,
    SEGMENTATION,
    WAV2LIP,
    WAV2LIP_GAN,
    Model,
)

GOLDEN_DETECTOR = "s3fd_golden"  # the detector with the weights of the golden data; `wav2lip` has those already
UNMEASURED = (WAV2LIP_GAN, LIPSYNC_GAN)  # the same network once more; each start would compile and capture it, too
VERSION = "1"
_REDDER = 40.0  # gray levels of red above blue of a person, as in the stand-in
_PROVENANCE = Provenance("0" * 64, stand_in=True)


def write(folder: Path, weights: Path, variant: Variant, profile: Profile) -> None:
    """Write the repository, unless an earlier run has finished it.

    Raises:
        ExportError: the variant cannot be built.
    """
    done = folder / ".complete"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for model in MODELS:
        if model not in UNMEASURED:
            _copy_model(model, folder, profile)
    _add_segmentation(folder)
    detector = S3FDGraph(load_s3fd(weights / S3FD_FILE))
    generator = Wav2LipGraph(load_wav2lip(weights / WAV2LIP_FILE))
    _add(folder, S3FD, detector, variant, profile)
    _add(folder, WAV2LIP, generator, variant, profile)
    if profile is Profile.GPU:  # as the exporter does, a network with a queue of its own for `live`
        _link(folder, LIVE_NETWORKS[WAV2LIP.name], folder / WAV2LIP.name / VERSION, variant, profile)
    _add(folder, S3FD, S3FDGraph(random_weights.s3fd()), variant, profile, name=GOLDEN_DETECTOR)
    done.touch()


def write_compiled(folder: Path, source: Path, buckets: Sequence[int], cache: Path) -> None:
    """Write a repository of `wav2lip` alone, which the `pytorch` backend compiles when it loads.

    Args:
        folder: the repository.
        source: a repository of TorchScript.
        buckets: the batch sizes to compile; each takes a while.
        cache: folder of the compiler's results.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source / WAV2LIP.name, folder / WAV2LIP.name, copy_function=os.link)
    path = folder / WAV2LIP.name / model_config.CONFIG_FILE
    config = text_format.Parse(path.read_text("utf-8"), pb.ModelConfig())
    # without PIPELINE the backend compiles on a GPU only
    for name, value in (("COMPILE", "default"), ("COMPILE_CACHE", str(cache)), ("PIPELINE", "yes")):
        config.parameters[name].string_value = value
    config.parameters["BUCKETS"].string_value = ",".join(map(str, buckets))
    del config.model_warmup[:]  # the backend itself runs every bucket when it loads
    path.unlink()  # a link
    path.write_text(text_format.MessageToString(config), "utf-8")


def _copy_model(model: Model, folder: Path, profile: Profile) -> None:
    version = folder / model.name / VERSION
    version.mkdir(parents=True)
    for file in (model_config.committed() / model.name / VERSION).glob("*.py"):
        shutil.copyfile(file, version / file.name)
    model_config.write_one(model, folder, profile=profile)


def _add(
    folder: Path, model: Model, graph: S3FDGraph | Wav2LipGraph, variant: Variant, profile: Profile, name: str = ""
) -> None:
    """Export a network into the repository, as the model `name` if it is given."""
    work = folder / f".{name or model.name}"
    builder = VariantBuilder(
        model, graph.eval(), _PROVENANCE, "seeded random", calibration=_no_calibration, evaluation={}, folder=work
    )
    built = builder.build(variant)
    (built / RECORD_FILE).write_text(json.dumps({"format": variant.format, "precision": variant.precision}))
    _link(folder, model, built, variant, profile, name)
    shutil.rmtree(work)


def _link(folder: Path, model: Model, files: Path, variant: Variant, profile: Profile, name: str = "") -> None:
    """Serve the files of an exported network as `model`, or under another name with the same configuration."""
    parameters = {"precision": variant.precision, "checkpoint": _PROVENANCE.kind}
    config = model_config.config(model, parameters, variant=variant, profile=profile)
    config.name = name or model.name
    target = folder / config.name / VERSION
    shutil.copytree(files, target, copy_function=os.link, dirs_exist_ok=True)
    (target.parent / model_config.CONFIG_FILE).write_text(text_format.MessageToString(config), "utf-8")


def _no_calibration() -> list[tuple[()]]:
    raise ValueError("int8 is not exported here")


def _add_segmentation(folder: Path) -> None:
    """Add a segmentation on the CPU: it is not measured, and the machine's onnxruntime may have no CUDA."""
    model_config.write_one(SEGMENTATION, folder, {"precision": "fp32"}, variant=ONNX_FP32, profile=Profile.CPU)
    onnx.save(_segmentation(), folder / SEGMENTATION.name / VERSION / ONNX_FP32.format.file)


def _segmentation() -> onnx.ModelProto:
    """Return a graph that labels a pixel as a person if it is much more red than blue."""
    node: Callable[..., onnx.NodeProto] = helper.make_node
    image, labels = SEGMENTATION.inputs[0], SEGMENTATION.outputs[0]
    nodes = [
        node("Cast", [image.name], ["pixels"], to=TensorProto.FLOAT),
        *(node("Gather", ["pixels", color], [f"is_{color}"], axis=2) for color in ("red", "blue")),
        node("Sub", ["is_red", "is_blue"], ["difference"]),
        node("Greater", ["difference", "limit"], ["redder"]),
        node("Cast", ["redder"], ["person"], to=TensorProto.INT32),
        node("Mul", ["person", "class"], [labels.name]),
    ]
    constants = [
        helper.make_tensor("red", TensorProto.INT64, [], [0]),
        helper.make_tensor("blue", TensorProto.INT64, [], [2]),
        helper.make_tensor("limit", TensorProto.FLOAT, [], [_REDDER]),
        helper.make_tensor("class", TensorProto.INT32, [], [PERSON]),
    ]
    graph = helper.make_graph(
        nodes,
        SEGMENTATION.name,
        [helper.make_tensor_value_info(image.name, TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info(labels.name, TensorProto.INT32, ["height", "width"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
