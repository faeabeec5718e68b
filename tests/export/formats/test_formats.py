"""The files meet the requirements of NVIDIA's native backends (docs/adr/0010)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from export.checkpoints.provenance import Provenance
from export.formats import openvino_ir, torchscript
from export.networks.inference import S3FDGraph, Wav2LipGraph, to_half
from export.validation import samples
from export.variants import Precision
from lipsync import tensors
from lipsync.tensors import Model

nets = pytest.mark.parametrize("model", [tensors.WAV2LIP, tensors.S3FD], ids=["wav2lip", "s3fd"])
# PyTorch has all of them since 1.x, with the arguments used here; NVIDIA's container 24.10 has PyTorch 2.5.
OLD_OPERATORS = {
    *("add", "arange", "cat", "cumsum", "div", "exp", "expand", "flatten", "flip", "gather", "mul", "ones_like"),
    *("permute", "relu", "select", "sigmoid", "slice", "sqrt", "square", "stack", "sub", "sum", "to", "topk"),
    *("unbind", "unsqueeze", "view", "max_pool2d", "_convolution", "conv2d", "amax", "size", "Int", "rsub", "reshape"),
}
NEWEST_ARCHIVE = 10  # kMaxSupportedFileFormatVersion of PyTorch 2.5
NEWEST_OPSET = 15  # of OpenVINO 2024.4, the version in 24.10


@pytest.fixture(scope="module")
def archive(
    wav2lip_graph: Wav2LipGraph, s3fd_graph: S3FDGraph, provenance: Provenance, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Model, bool], Path]:
    """Return a function that exports a network to TorchScript, each variant once."""
    graphs: dict[str, Wav2LipGraph | S3FDGraph] = {"wav2lip": wav2lip_graph, "s3fd": s3fd_graph}

    @cache
    def save(model: Model, half: bool) -> Path:
        path = tmp_path_factory.mktemp(model.name) / "model.pt"
        graph, batch = graphs[model.name], 1 if half else 2  # FP16 is slow on a CPU
        torchscript.save(model, to_half(graph) if half else graph, samples.timing(model, batch), path, provenance)
        return path

    return save


@nets
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_a_torchscript_archive_names_its_inputs_and_is_old_enough_to_be_read(
    model: Model, archive: Callable[[Model, bool], Path], half: bool, provenance: Provenance
) -> None:
    path = archive(model, half)
    module, notes = torchscript.load(path)
    arguments = [argument.name for argument in module.forward.schema.arguments]  # type: ignore[attr-defined]
    assert arguments == ["self", *(tensor.name for tensor in model.inputs)]
    assert notes["checkpoint_sha256"] == provenance.sha256
    operators = {node.kind().removeprefix("aten::") for node in nodes(module) if node.kind().startswith("aten::")}  # type: ignore[arg-type]
    assert operators <= OLD_OPERATORS
    with zipfile.ZipFile(path) as file:
        (version,) = [file.read(name) for name in file.namelist() if re.fullmatch(r"[^/]+/version", name)]
    assert int(version) <= NEWEST_ARCHIVE


@nets
def test_a_torchscript_archive_keeps_no_device(model: Model, archive: Callable[[Model, bool], Path]) -> None:
    module, _ = torchscript.load(archive(model, False))
    devices = [node for node in nodes(module) if node.kind() == "prim::Constant" and is_device(node)]  # type: ignore[arg-type]
    assert devices == [], "the trace has recorded its device"


@nets
def test_cudnn_measures_its_kernels_only_for_rows_of_a_fixed_size(
    model: Model, archive: Callable[[Model, bool], Path]
) -> None:
    module, _ = torchscript.load(archive(model, False))
    convolutions = [node for node in nodes(module) if node.kind() == "aten::_convolution"]  # type: ignore[arg-type]
    flags = {tuple(flag.toIValue() for flag in list(node.inputs())[-4:]) for node in convolutions}
    # benchmark, deterministic, cudnn_enabled, allow_tf32
    assert flags == {(model is tensors.WAV2LIP, False, True, True)}


@nets
def test_an_ir_has_one_name_per_port_and_is_old_enough_to_be_read(
    model: Model, tmp_path: Path, provenance: Provenance, request: pytest.FixtureRequest
) -> None:
    import openvino

    path = tmp_path / "model.xml"
    openvino_ir.save(model, request.getfixturevalue(f"{model.name}_onnx"), path, Precision.FP32, provenance)
    read = openvino.Core().read_model(path)
    for ports, table in ((read.inputs, model.inputs), (read.outputs, model.outputs)):
        assert [port.get_names() for port in ports] == [{tensor.name} for tensor in table]
    assert read.get_rt_info(["talking_avatar", "checkpoint_sha256"]).astype(str) == provenance.sha256
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
