"""The files meet the requirements of NVIDIA's native backends (docs/adr/0010)."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from export.checkpoints.provenance import Provenance
from export.formats import torchscript
from export.validation import samples
from export.variants import Format, Precision, Variant
from lipsync import tensors
from lipsync.tensors import Model
from tests.support.golden_exports import GoldenBuilder
from tests.support.small_networks import half_graph

nets = pytest.mark.parametrize("model", [tensors.WAV2LIP, tensors.S3FD], ids=["wav2lip", "s3fd"])
# PyTorch has all of them since 1.x, with the arguments used here; NVIDIA's container 24.10 has PyTorch 2.5.
OLD_OPERATORS = {
    *("add", "arange", "cat", "cumsum", "div", "exp", "expand", "flatten", "flip", "gather", "mul", "ones_like"),
    *("permute", "relu", "select", "sigmoid", "slice", "sqrt", "square", "stack", "sub", "sum", "to", "topk"),
    *("unbind", "unsqueeze", "view", "max_pool2d", "_convolution", "conv2d", "amax", "size", "Int", "rsub", "reshape"),
}
NEWEST_ARCHIVE = 10  # kMaxSupportedFileFormatVersion of PyTorch 2.5
NEWEST_OPSET = 15  # of OpenVINO 2024.4, the version in 24.10
TORCHSCRIPT_FP32 = Variant(Format.TORCHSCRIPT, Precision.FP32)


@nets
@pytest.mark.parametrize("precision", [Precision.FP32, pytest.param(Precision.FP16, marks=pytest.mark.slow)])
def test_a_torchscript_archive_names_its_inputs_and_is_old_enough_to_be_read(
    model: Model, precision: Precision, golden_builders: dict[str, GoldenBuilder]
) -> None:
    check_archive(model, golden_builders[model.name].file(Variant(Format.TORCHSCRIPT, precision)))


@nets
def test_the_arithmetic_around_a_network_in_fp16_is_old_enough_to_be_read(
    model: Model, provenance: Provenance, tmp_path: Path
) -> None:
    torchscript.save(model, half_graph(model), samples.timing(model, 2), tmp_path / "model.pt", provenance)
    check_archive(model, tmp_path / "model.pt")


def check_archive(model: Model, path: Path) -> None:
    module, notes = torchscript.load(path)
    arguments = [argument.name for argument in module.forward.schema.arguments]  # type: ignore[attr-defined]
    assert arguments == ["self", *(tensor.name for tensor in model.inputs)]
    assert notes["checkpoint_sha256"] == "5" * 64
    operators = {node.kind().removeprefix("aten::") for node in nodes(module) if node.kind().startswith("aten::")}  # type: ignore[arg-type]
    assert operators <= OLD_OPERATORS
    with zipfile.ZipFile(path) as file:
        (version,) = [file.read(name) for name in file.namelist() if re.fullmatch(r"[^/]+/version", name)]
    assert int(version) <= NEWEST_ARCHIVE


@nets
def test_a_torchscript_archive_keeps_no_device(model: Model, golden_builders: dict[str, GoldenBuilder]) -> None:
    module, _ = torchscript.load(golden_builders[model.name].file(TORCHSCRIPT_FP32))
    devices = [node for node in nodes(module) if node.kind() == "prim::Constant" and is_device(node)]  # type: ignore[arg-type]
    assert devices == [], "the trace has recorded its device"


@nets
def test_cudnn_measures_its_kernels_only_for_rows_of_a_fixed_size(
    model: Model, golden_builders: dict[str, GoldenBuilder]
) -> None:
    module, _ = torchscript.load(golden_builders[model.name].file(TORCHSCRIPT_FP32))
    convolutions = [node for node in nodes(module) if node.kind() == "aten::_convolution"]  # type: ignore[arg-type]
    flags = {tuple(flag.toIValue() for flag in list(node.inputs())[-4:]) for node in convolutions}
    # benchmark, deterministic, cudnn_enabled, allow_tf32
    assert flags == {(model is tensors.WAV2LIP, False, True, True)}


@nets
def test_an_ir_has_one_name_per_port_and_is_old_enough_to_be_read(
    model: Model, golden_builders: dict[str, GoldenBuilder]
) -> None:
    import openvino

    path = golden_builders[model.name].file(Variant(Format.OPENVINO, Precision.FP32))
    read = openvino.Core().read_model(path)
    for ports, table in ((read.inputs, model.inputs), (read.outputs, model.outputs)):
        assert [port.get_names() for port in ports] == [{tensor.name} for tensor in table]
    assert read.get_rt_info(["talking_avatar", "checkpoint_sha256"]).astype(str) == "5" * 64
    tree = ElementTree.parse(path).getroot()  # noqa: S314 - written by this test
    assert int(tree.attrib["version"]) <= 11
    opsets = {layer.attrib["version"] for layer in tree.iter("layer")}
    assert max(int(opset.removeprefix("opset")) for opset in opsets) <= NEWEST_OPSET


def is_device(node: torch._C.Node) -> bool:
    return next(node.outputs()).type().kind() == "DeviceObjType"


def nodes(module: torch.jit.ScriptModule) -> list[torch._C.Node]:
    nodes_found, waiting = [], [module.inlined_graph]
    while waiting:
        for node in waiting.pop().nodes():
            nodes_found.append(node)
            waiting += list(node.blocks())  # type: ignore[arg-type]
    return nodes_found
