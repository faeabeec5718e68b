from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from export.checkpoints import load
from export.errors import ExportError
from export.networks.inference import S3FDGraph
from export.validation.sample_media import Media
from export.validation.samples import Samples
from lipsync import tensors
from tests.support.quick_judge import small_media


@pytest.fixture(scope="module")
def detector(stand_in_weights: Path) -> S3FDGraph:
    return S3FDGraph(load.load_s3fd(stand_in_weights / "s3fd.pth")).eval()


@pytest.mark.parametrize(
    "net", [pytest.param(tensors.WAV2LIP, marks=pytest.mark.slow), tensors.S3FD], ids=lambda net: net.name
)
def test_samples_fit_the_tensors_and_are_reproducible(net: tensors.Model, detector: S3FDGraph) -> None:
    first, again = (Samples(Media.shipped(), detector, print) for _ in range(2))
    batches = first.calibration(net)
    for batch, same in zip(batches, again.calibration(net), strict=True):
        for tensor, array, other in zip(net.inputs, batch, same, strict=True):
            assert tensor.accepts(array, batched=True)
            np.testing.assert_array_equal(array, other)
    sets = first.evaluation(net)
    assert "noise" in sets and len(sets) == 2
    for batch in (batch for batches in sets.values() for batch in batches):
        assert all(tensor.accepts(array, batched=True) for tensor, array in zip(net.inputs, batch, strict=True))


def test_calibration_and_evaluation_share_no_sample(detector: S3FDGraph, tmp_path: Path) -> None:
    samples = Samples(small_media(tmp_path), detector, print)
    calibrated = {face.tobytes() for faces, _ in samples.calibration(tensors.WAV2LIP) for face in faces}
    evaluated = [
        face.tobytes() for batches in samples.evaluation(tensors.WAV2LIP).values() for b in batches for face in b[0]
    ]
    assert len(calibrated) == 64
    assert len(evaluated) == 24
    assert not calibrated & set(evaluated)


def test_the_frames_of_a_video_are_spread_over_its_whole_length(detector: S3FDGraph, tmp_path: Path) -> None:
    path = tmp_path / "gray.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in range(0, 200, 2):
        video.write(np.full((48, 64, 3), level, np.uint8))
    video.release()
    lines: list[str] = []
    samples = Samples(Media((path,), Media.shipped().speech), detector, lines.append)
    images = [batch[0][0] for batch in samples.evaluation(tensors.S3FD)["images"][:2]]
    assert [image.shape for image in images] == [(48, 64, 3)] * 2
    assert images[1].mean() - images[0].mean() == pytest.approx(200 / 7, abs=4)
    samples.calibration(tensors.WAV2LIP)
    assert len(lines) == 8  # one for each frame without a face
    assert "no face found" in lines[0]


def test_an_unreadable_file_is_named(detector: S3FDGraph, tmp_path: Path) -> None:
    text, silence = tmp_path / "notes.txt", tmp_path / "short.wav"
    text.write_text("not an image")
    soundfile.write(silence, np.zeros(100, np.float32), 16000)
    with pytest.raises(ExportError, match=r"notes\.txt: neither an image nor a video.*--frames"):
        Samples(Media((text,), Media.shipped().speech), detector, print).calibration(tensors.S3FD)
    for speech in (text, silence):
        with pytest.raises(ExportError, match=rf"{speech.name}: cannot be read as speech.*--speech"):
            Samples(Media(Media.shipped().frames, (speech,)), detector, print).calibration(tensors.WAV2LIP)
