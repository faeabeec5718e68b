from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn

import lipsync
from export.checkpoints.provenance import Provenance
from export.errors import ExportError
from export.formats import onnx_export, onnx_model
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.validation import samples
from export.variants import ONNX_FP32, Format, Precision, Variant
from lipsync import face_detection, tensors
from lipsync.tensors import Model
from tests.support.golden_exports import GoldenBuilder
from tests.support.golden_weights import GOLDEN
from tests.support.small_networks import half_graph

DTYPES = {"UINT8": "tensor(uint8)", "FP32": "tensor(float)"}
nets = pytest.mark.parametrize("model", [tensors.WAV2LIP, tensors.S3FD], ids=["wav2lip", "s3fd"])


@pytest.fixture(scope="module")
def session(golden_builders: dict[str, GoldenBuilder]) -> Callable[[Model], InferenceSession]:
    """Return the session of a network's export; to make one takes a second."""
    return cache(lambda model: onnx_model.session(golden_builders[model.name].file(ONNX_FP32)))


@nets
def test_an_export_has_the_tensors_of_the_table(model: Model, session: Callable[[Model], InferenceSession]) -> None:
    made = session(model)
    for exported, table in ((made.get_inputs(), model.inputs), (made.get_outputs(), model.outputs)):
        assert [(t.name, t.type) for t in exported] == [(t.name, DTYPES[t.dtype]) for t in table]
        for tensor, expected in zip(exported, table, strict=True):
            assert tensor.shape[0] == "batch"
            assert [-1 if isinstance(size, str) else size for size in tensor.shape[1:]] == list(expected.shape)


@nets
def test_an_export_can_be_read_by_nvidias_container(model: Model, golden_builders: dict[str, GoldenBuilder]) -> None:
    proto = onnx.load(golden_builders[model.name].file(ONNX_FP32))
    assert proto.ir_version <= 10
    (opset,) = proto.opset_import
    assert opset.domain == ""
    assert opset.version <= 21
    onnx.checker.check_model(proto)


@nets
def test_an_export_records_its_checkpoint(model: Model, golden_builders: dict[str, GoldenBuilder]) -> None:
    proto = onnx.load(golden_builders[model.name].file(ONNX_FP32))
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "checkpoint_sha256": "5" * 64,
        "stand_in": "true",
        "talking_avatar_version": lipsync.__version__,
    }


@nets
def test_tensorrt_meets_uint8_only_in_casts_at_the_edge_of_the_graph(
    model: Model,
    tiny_repository: Path,
    golden_builders: dict[str, GoldenBuilder],
    provenance: Provenance,
    tmp_path: Path,
) -> None:
    half = tmp_path / "model.onnx"
    onnx_export.save(model, half_graph(model), samples.timing(model, 2), half, provenance)
    whole, tiny = golden_builders[model.name].file(ONNX_FP32), tiny_repository / model.name / "1" / "model.onnx"
    for path in (half, whole, tiny):
        assert onnx_model.misplaced_uint8(onnx.load(path)) == []
    for path in (half, whole):
        assert loops(path) == set()


@pytest.mark.slow
@nets
def test_tensorrt_can_read_the_networks_in_fp16(model: Model, golden_builders: dict[str, GoldenBuilder]) -> None:
    path = golden_builders[model.name].file(Variant(Format.ONNX, Precision.FP16))
    assert onnx_model.misplaced_uint8(onnx.load(path)) == []
    assert loops(path) == set()


def loops(path: Path) -> set[str]:
    """Return what TensorRT makes loops of, which no CUDA graph can hold, or outputs of unknown sizes."""
    return {node.op_type for node in onnx.load(path).graph.node} & {"CumSum", "Loop", "Scan", "NonZero"}


def test_uint8_elsewhere_is_found() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        graph (uint8[n] image) => (uint8[n] result, uint8[n] made) {
            pixels = Cast<to = 1>(image)
            size = Shape(image)
            again = Cast<to = 2>(pixels)
            result = Identity(again)
            made = Cast<to = 2>(pixels)
        }"""
    )
    assert onnx_model.misplaced_uint8(proto) == ["image (Shape)", "again (Cast)", "result (Identity)"]


def test_batch_norms_are_folded_into_the_convolutions(wav2lip_onnx: Path) -> None:
    kinds = {node.op_type for node in onnx.load(wav2lip_onnx).graph.node}
    assert {"Conv", "ConvTranspose"} <= kinds
    assert "BatchNormalization" not in kinds


def test_the_exported_wav2lip_gives_the_golden_mouths(session: Callable[[Model], InferenceSession]) -> None:
    with np.load(GOLDEN / "wav2lip.npz") as golden:
        inputs = golden["faces"], golden["mel"]
        (mouths,) = onnx_model.run(session(tensors.WAV2LIP), tensors.WAV2LIP, inputs)
        assert np.abs(mouths.astype(int) - golden["mouths"]).max() <= 2


@pytest.mark.parametrize("count", [1, 2])
def test_the_exported_s3fd_finds_the_golden_faces(session: Callable[[Model], InferenceSession], count: int) -> None:
    with np.load(GOLDEN / "s3fd.npz") as golden:
        boxes, scores = onnx_model.run(session(tensors.S3FD), tensors.S3FD, [golden["frames"][:count]])
        kept, kept_scores = face_detection.non_max_suppression(boxes, scores)
        for n in range(count):
            corners = face_detection.best_face(kept[n], kept_scores[n])
            assert corners is not None
            np.testing.assert_array_equal(corners, golden["best_int"][n])


@pytest.mark.parametrize("size", [(32, 32), (47, 33), (200, 64)])
def test_the_exported_s3fd_accepts_images_of_any_size(
    session: Callable[[Model], InferenceSession], s3fd_graph: S3FDGraph, size: tuple[int, int]
) -> None:
    images = np.random.default_rng(7).integers(0, 256, (2, *size, 3), np.uint8)
    _, scores = onnx_model.run(session(tensors.S3FD), tensors.S3FD, [images])
    with torch.inference_mode():
        _, expected = s3fd_graph(torch.from_numpy(images))
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert (np.diff(scores) <= 0).all()


class Echo(nn.Module):
    """A substitute for Wav2Lip that returns the crop."""

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        return face[:, 3:] + 0 * mel.mean()


def test_a_graph_with_other_tensors_than_the_tables_is_rejected(tmp_path: Path, provenance: Provenance) -> None:
    class InFloat(Wav2LipGraph):
        def forward(self, face: Tensor, mel: Tensor) -> Tensor:
            return super().forward(face, mel).float()

    with pytest.raises(ExportError, match="wav2lip: the graph's tensors are"):
        onnx_export.save(
            tensors.WAV2LIP,
            InFloat(Echo()),  # type: ignore[arg-type]
            samples.timing(tensors.WAV2LIP, 2),
            tmp_path / "model.onnx",
            provenance,
        )


@pytest.mark.parametrize(("opset", "ir"), [(22, 10), (17, 11)])
def test_a_file_too_new_for_nvidias_container_is_rejected(
    wav2lip_onnx: Path, provenance: Provenance, opset: int, ir: int
) -> None:
    proto = onnx.load(wav2lip_onnx, load_external_data=False)
    proto.opset_import[0].version, proto.ir_version = opset, ir
    with pytest.raises(
        ExportError, match=f"wav2lip: opset {opset}, IR {ir}; NVIDIA's container reads at most opset 21, IR 10"
    ):
        onnx_model.annotate(proto, tensors.WAV2LIP, provenance)
