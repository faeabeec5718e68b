from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lipsync
from export.checkpoints.provenance import Provenance
from export.errors import ExportError
from export.formats import onnx_export, onnx_model
from export.networks.inference import S3FDGraph, Wav2LipGraph, to_half
from export.validation import samples
from lipsync import face_detection, tensors
from lipsync.tensors import Model
from tests.support import tiny_repository
from tests.support.golden_weights import GOLDEN

DTYPES = {"UINT8": "tensor(uint8)", "FP32": "tensor(float)"}
exports = pytest.mark.parametrize(
    ("model", "fixture"), [(tensors.WAV2LIP, "wav2lip_onnx"), (tensors.S3FD, "s3fd_onnx")], ids=["wav2lip", "s3fd"]
)


def run(path: Path, model: Model, *inputs: np.ndarray) -> list[np.ndarray]:
    return onnx_model.run(onnx_model.session(path), model, inputs)


@exports
def test_an_export_has_the_tensors_of_the_table(model: Model, fixture: str, request: pytest.FixtureRequest) -> None:
    session = onnx_model.session(request.getfixturevalue(fixture))
    for exported, table in ((session.get_inputs(), model.inputs), (session.get_outputs(), model.outputs)):
        assert [(t.name, t.type) for t in exported] == [(t.name, DTYPES[t.dtype]) for t in table]
        for tensor, expected in zip(exported, table, strict=True):
            assert tensor.shape[0] == "batch"
            assert [-1 if isinstance(size, str) else size for size in tensor.shape[1:]] == list(expected.shape)


@exports
def test_an_export_can_be_read_by_nvidias_container(model: Model, fixture: str, request: pytest.FixtureRequest) -> None:
    proto = onnx.load(request.getfixturevalue(fixture))
    assert proto.ir_version <= 10
    (opset,) = proto.opset_import
    assert opset.domain == ""
    assert opset.version <= 21
    onnx.checker.check_model(proto)


@exports
def test_an_export_records_its_checkpoint(model: Model, fixture: str, request: pytest.FixtureRequest) -> None:
    notes = onnx_model.session(request.getfixturevalue(fixture)).get_modelmeta().custom_metadata_map
    assert notes == {"checkpoint_sha256": "5" * 64, "stand_in": "true", "talking_avatar_version": lipsync.__version__}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that most tests of the service use."""
    repository = tmp_path_factory.mktemp("tiny") / "repository"
    tiny_repository.write(repository)
    return repository


@exports
def test_tensorrt_meets_uint8_only_in_casts_at_the_edge_of_the_graph(
    model: Model, fixture: str, request: pytest.FixtureRequest, tiny: Path, provenance: Provenance, tmp_path: Path
) -> None:
    half = tmp_path / "model.onnx"
    graph = to_half(request.getfixturevalue(fixture.replace("onnx", "graph")))
    onnx_export.save(model, graph, samples.timing(model, 1), half, provenance)
    for path in (half, request.getfixturevalue(fixture), tiny / model.name / "1" / "model.onnx"):
        assert onnx_model.misplaced_uint8(onnx.load(path)) == []
    # what TensorRT's parser turns into loops, which no CUDA graph can hold, or into outputs of unknown sizes
    assert not {node.op_type for node in onnx.load(half).graph.node} & {"CumSum", "Loop", "Scan", "NonZero"}


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


def test_the_exported_wav2lip_gives_the_golden_mouths(wav2lip_onnx: Path) -> None:
    with np.load(GOLDEN / "wav2lip.npz") as golden:
        (mouths,) = run(wav2lip_onnx, tensors.WAV2LIP, golden["faces"], golden["mel"])
        assert np.abs(mouths.astype(int) - golden["mouths"]).max() <= 2


@pytest.mark.parametrize("count", [1, 2])
def test_the_exported_s3fd_finds_the_golden_faces(s3fd_onnx: Path, count: int) -> None:
    with np.load(GOLDEN / "s3fd.npz") as golden:
        boxes, scores = run(s3fd_onnx, tensors.S3FD, golden["frames"][:count])
        kept, kept_scores = face_detection.non_max_suppression(boxes, scores)
        for n in range(count):
            corners = face_detection.best_face(kept[n], kept_scores[n])
            assert corners is not None
            np.testing.assert_array_equal(corners, golden["best_int"][n])


@pytest.mark.parametrize("size", [(32, 32), (47, 33), (200, 64)])
def test_the_exported_s3fd_accepts_images_of_any_size(
    s3fd_onnx: Path, s3fd_graph: S3FDGraph, size: tuple[int, int]
) -> None:
    images = np.random.default_rng(7).integers(0, 256, (2, *size, 3), np.uint8)
    _, scores = run(s3fd_onnx, tensors.S3FD, images)
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
