"""Which of several variants is exported, and which are not written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import pytest

from export.build.selection import VariantSelector
from export.build.variant_builder import VariantBuilder
from export.checkpoints.checkpoint_set import CheckpointSet, find_checkpoints
from export.checkpoints.provenance import Provenance
from export.checkpoints.registry import FILES
from export.validation import gpu_runs
from export.validation.accuracy import AccuracyError, Result
from export.validation.gpu import NO_GPU, Gpu
from export.validation.runtimes import Run
from export.validation.sample_media import Media
from export.variants import GPU_CANDIDATES, ONNX_FP32, Format, Precision, Variant
from lipsync import tensors
from lipsync.arrays import Array, Batch
from lipsync.tensors import Model
from tests.support.quick_judge import few_samples, small_media

OPENVINO_FP32 = Variant(Format.OPENVINO, Precision.FP32)
OPENVINO_INT8 = Variant(Format.OPENVINO, Precision.INT8)
REAL = Provenance("0" * 64, stand_in=False)
THRESHOLD = 35.0


class FakeBuilder(VariantBuilder):
    """Builds small files: int8 is the fastest and inaccurate, OpenVINO is faster than ONNX."""

    def run(self, variant: Variant) -> Run:
        seconds = 0.001 if variant == OPENVINO_INT8 else 0.01 if variant == OPENVINO_FP32 else 0.05

        def run(batch: Batch) -> list[Array]:
            time.sleep(seconds)
            return [*batch]

        return run

    def network(self) -> Run:
        return self.run(ONNX_FP32)  # PyTorch takes seconds for a stand-in, most of whose weights are zero

    def save_samples(self, path: Path) -> None:
        path.touch()

    def evaluate(self, variant: Variant) -> list[Result]:
        score = 20.0 if variant.precision is Precision.INT8 else 60.0
        return [Result("real", "crops", 1, 0.0, 0.0, score, score, THRESHOLD)]

    def _write(self, variant: Variant, path: Path) -> None:
        path.write_text(str(variant))


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    """Small files: the detector takes seconds for the shipped ones."""
    return small_media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def selector(stand_in_weights: Path, media: Media, tmp_path: Path, lines: list[str]) -> VariantSelector:
    """A selector that takes the stand-ins for real checkpoints, so it builds no random twins."""
    checkpoints = CheckpointSet({name: stand_in_weights / name for name in FILES}, frozenset())
    return VariantSelector(checkpoints, media, tmp_path, lines.append, builder=FakeBuilder, batches=(1,))


@pytest.mark.slow  # half a minute of a core; the other tests race fake exports
def test_the_fastest_variant_is_exported_and_timed_together_with_the_network(
    stand_in_weights: Path, media: Media, tmp_path: Path, lines: list[str]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    checkpoints = find_checkpoints(stand_in_weights)
    selector = VariantSelector(checkpoints, media, folder, lines.append, batches=(1, 2))
    candidates, provenance = (OPENVINO_FP32, ONNX_FP32), Provenance("0" * 64, stand_in=True)
    with few_samples():
        report = selector.export(tensors.WAV2LIP, provenance, candidates, tmp_path / "export", timed=True)
    (ranking,) = [line for line in lines if line.startswith("wav2lip: ms per frame")]
    assert ranking.split(": ")[2].startswith(str(report.variant))
    expected = {"model.xml", "model.bin"} if report.variant == OPENVINO_FP32 else {"model.onnx"}
    assert {file.name for file in (tmp_path / "export").iterdir()} == expected
    assert report.size == sum(file.stat().st_size for file in (tmp_path / "export").iterdir())
    assert list(report.milliseconds)[:2] == ["PyTorch fp32", "onnxruntime fp32"]
    assert all(len(times) == 2 and min(times) > 0 for times in report.milliseconds.values())
    text = "\n".join(report.lines())
    for words in (
        "PSNR dB",
        "stand-in",
        "seeded random",
        "crops",
        "noise",
        "batch 2",
        "evaluated without the published",
    ):
        assert words in text


def test_an_inaccurate_variant_is_reported_and_the_next_one_exported(
    selector: VariantSelector, tmp_path: Path, lines: list[str]
) -> None:
    candidates = (ONNX_FP32, OPENVINO_INT8, OPENVINO_FP32)
    report = selector.export(tensors.WAV2LIP, REAL, candidates, tmp_path / "export", timed=True)
    assert report.variant == OPENVINO_FP32
    assert (tmp_path / "export" / "model.xml").read_text() == "openvino fp32"
    assert list(report.milliseconds) == ["PyTorch fp32", "onnxruntime fp32", "openvino fp32"]
    assert report.to_json()["evaluated_on_real_weights"] is True
    evaluated = [line.rpartition("evaluating ")[2] for line in lines if "building and evaluating" in line]
    assert evaluated == ["openvino int8", "openvino fp32"]  # the fastest first, and none after the accurate one
    assert [line for line in lines if "wav2lip as openvino int8: not accurate enough, not written" in line]


def test_without_an_accurate_variant_nothing_is_written(selector: VariantSelector, tmp_path: Path) -> None:
    with pytest.raises(
        AccuracyError, match=r"openvino int8: not accurate enough.*crops \(real weights\) reach 20 dB, .* 35"
    ):
        selector.export(tensors.WAV2LIP, REAL, (OPENVINO_INT8,), tmp_path / "export", timed=False)
    assert not (tmp_path / "export").exists()


def test_a_network_for_a_plan_is_its_onnx_file_with_samples_to_judge_the_plan_and_no_times(
    selector: VariantSelector, tmp_path: Path
) -> None:
    plan = Variant(Format.TENSORRT, Precision.FP16)
    report = selector.export(tensors.WAV2LIP, REAL, (plan,), tmp_path / "export", timed=True)
    assert {file.name for file in (tmp_path / "export").iterdir()} == {"model.onnx", "evaluation.npz"}
    assert (report.variant, report.milliseconds) == (plan, {})


def test_the_two_wav2lip_models_are_ranked_once(selector: VariantSelector, tmp_path: Path, lines: list[str]) -> None:
    for model in (tensors.WAV2LIP, tensors.WAV2LIP_GAN):
        report = selector.export(model, REAL, (OPENVINO_FP32, ONNX_FP32), tmp_path / model.name, timed=False)
        assert report.variant == OPENVINO_FP32
    assert len([line for line in lines if "to compare their speed" in line]) == 1


TORCHSCRIPT_FP16, ONNX_FP16 = GPU_CANDIDATES


class GpuBuilder(FakeBuilder):
    """Counts runs by batch size. On the GPU, ONNX is slow in its first runs and the fastest after them."""

    runs: ClassVar[dict[Variant, list[int]]] = {}

    def run(self, variant: Variant) -> Run:
        sizes = self.runs.setdefault(variant, [])

        def run(batch: Batch) -> list[Array]:
            sizes.append(len(batch[0]))
            slow = variant != ONNX_FP16 or len(sizes) < 3
            time.sleep(0.02 if slow else 0.001)
            return [*batch]

        return run


def test_on_a_gpu_the_candidates_race_warm_and_in_large_batches(
    stand_in_weights: Path, media: Media, tmp_path: Path, lines: list[str]
) -> None:
    GpuBuilder.runs = {}
    gpu = Gpu("Card 9000")
    checkpoints = CheckpointSet({name: stand_in_weights / name for name in FILES}, frozenset())
    selector = VariantSelector(checkpoints, media, tmp_path, lines.append, builder=GpuBuilder, batches=(1,), gpu=gpu)
    report = selector.export(tensors.WAV2LIP, REAL, GPU_CANDIDATES, tmp_path / "export", timed=True)
    assert report.variant == ONNX_FP16
    assert all(sizes[:6] == [64] * 6 for sizes in (GpuBuilder.runs[each] for each in GPU_CANDIDATES))
    assert report.machine.startswith("Card 9000, ")
    assert list(report.milliseconds) == ["PyTorch fp32 on the CPU", "onnxruntime fp32", "onnx fp16"]
    (ranking,) = [line for line in lines if line.startswith("wav2lip: ms per frame")]
    assert "in batches of 64: onnx fp16" in ranking


def test_a_variant_is_run_on_the_gpu_that_can_run_it(tmp_path: Path) -> None:
    loaded: list[Variant] = []

    def load(model: Model, path: Path, variant: Variant) -> Run:
        loaded.append(variant)
        return lambda batch: [*batch]

    gpu = Gpu("Card 9000", {Format.TORCHSCRIPT: load})
    assert gpu.load(tensors.WAV2LIP, tmp_path, ONNX_FP16) is None
    assert gpu.load(tensors.WAV2LIP, tmp_path, TORCHSCRIPT_FP16) is not None
    assert loaded == [TORCHSCRIPT_FP16]
    assert NO_GPU.load(tensors.WAV2LIP, tmp_path, TORCHSCRIPT_FP16) is None


def test_onnxruntime_may_build_engines_for_inputs_of_one_size_only() -> None:
    generator = gpu_runs.onnx_run(tensors.WAV2LIP, ONNX_FP16)
    assert (generator.shapes, generator.half) == ({"face": (96, 96, 3), "mel": (80, 16)}, True)
    detector = gpu_runs.onnx_run(tensors.S3FD, ONNX_FP32)
    assert (detector.shapes, detector.half) == (None, False)


def test_a_gpu_has_a_name_and_formats_or_neither() -> None:
    found = gpu_runs.find()
    assert bool(found.name) == bool(found.formats)
