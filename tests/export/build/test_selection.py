"""Which of several variants is taken, and what is not written."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.build.selection import VariantSelector
from export.checkpoints.checkpoint_set import find_checkpoints
from export.checkpoints.provenance import Provenance
from export.validation import accuracy
from export.validation.accuracy import AccuracyError
from export.validation.sample_media import Media
from export.variants import ONNX_FP32, Format, Precision, Variant
from lipsync import tensors

OPENVINO_FP32 = Variant(Format.OPENVINO, Precision.FP32)
OPENVINO_FP16 = Variant(Format.OPENVINO, Precision.FP16)
ORIGIN = Provenance("0" * 64, stand_in=False)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture
def said(lines: list[str]) -> list[str]:
    """What the studio says in this test."""
    lines.clear()
    return lines


@pytest.fixture(scope="module")
def studio(golden_weights: Path, tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> VariantSelector:
    """On the golden fill, which bears no mark: nothing is made a second time with random weights."""
    return VariantSelector(
        find_checkpoints(golden_weights), Media.shipped(), tmp_path_factory.mktemp("studio"), lines.append
    )


def raise_bar(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    monkeypatch.setattr(accuracy, "MIN_PSNR_DB", {**accuracy.MIN_PSNR_DB, precision: 200.0})


def test_of_several_the_fastest_is_taken_and_timed_beside_the_network(stand_in_weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "work"
    folder.mkdir()
    studio = VariantSelector(find_checkpoints(stand_in_weights), Media.shipped(), folder, said.append)
    candidates, provenance = (OPENVINO_FP32, ONNX_FP32), Provenance("0" * 64, stand_in=True)
    report = studio.export(tensors.WAV2LIP, provenance, candidates, tmp_path / "export", timed=True)
    (race,) = [line for line in said if line.startswith("wav2lip: ms per frame")]
    assert race.split(": ")[2].startswith(str(report.variant))
    wanted = {"model.xml", "model.bin"} if report.variant == OPENVINO_FP32 else {"model.onnx"}
    assert {file.name for file in (tmp_path / "export").iterdir()} == wanted
    assert report.size == sum(file.stat().st_size for file in (tmp_path / "export").iterdir())
    assert list(report.milliseconds)[:2] == ["PyTorch fp32", "onnxruntime fp32"]
    assert all(len(times) == 3 and min(times) > 0 for times in report.milliseconds.values())
    text = "\n".join(report.lines())
    for words in (
        "PSNR dB",
        "stand-in",
        "seeded random",
        "crops",
        "noise",
        "batch 32",
        "evaluated without the published",
    ):
        assert words in text


def test_a_variant_below_its_bar_is_named_and_the_next_is_taken(
    studio: VariantSelector, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_bar(monkeypatch, Precision.FP16)
    candidates = (OPENVINO_FP16, ONNX_FP32)
    report = studio.export(tensors.WAV2LIP, ORIGIN, candidates, tmp_path / "export", timed=False)
    assert report.variant == ONNX_FP32
    judged = [line for line in said if "building and evaluating openvino fp16" in line]
    missed = [line for line in said if "wav2lip as openvino fp16: not accurate enough, not written" in line]
    assert len(judged) == len(missed)  # none of either where ONNX was the faster one


def test_an_export_below_its_bar_is_not_written(
    studio: VariantSelector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_bar(monkeypatch, Precision.FP16)
    with pytest.raises(
        AccuracyError, match=r"openvino fp16: not accurate enough.*crops \(real weights\) reach .* threshold is 200"
    ):
        studio.export(tensors.WAV2LIP, ORIGIN, (OPENVINO_FP16,), tmp_path / "export", timed=False)
    assert not (tmp_path / "export").exists()


def test_both_wav2lips_race_once(studio: VariantSelector, tmp_path: Path, said: list[str]) -> None:
    candidates = (OPENVINO_FP32, ONNX_FP32)
    for model in (tensors.WAV2LIP, tensors.WAV2LIP_GAN):
        studio.export(model, ORIGIN, candidates, tmp_path / model.name, timed=False)
    assert len([line for line in said if "to compare their speed" in line]) <= 1
