import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avatar.media.ffmpeg import executable
from bench.comparison import generated_media, original
from bench.comparison.original import Sample, Stages
from bench.comparison.workloads import WORKLOADS, Kind, Workload
from export.checkpoints.registry import S3FD_FILE
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from export.variants import Precision
from tests.support.golden_weights import golden_state


@pytest.fixture(scope="module")
def networks(golden: Path) -> tuple[S3FD, Wav2Lip]:
    detector, generator = S3FD().eval(), Wav2Lip().eval()
    detector.load_state_dict(golden_state(golden / "s3fd_state.json"))
    generator.load_state_dict(golden_state(golden / "wav2lip_state.json"))
    return detector, generator


def test_the_detection_equals_the_golden_data(golden: Path, networks: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "s3fd.npz") as recorded:
        np.testing.assert_array_equal(original.detect(networks[0], recorded["frames"]), recorded["best_int"])


def test_the_generation_equals_the_golden_data(golden: Path, networks: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "wav2lip.npz") as recorded:
        mouths = original.generate(networks[1], recorded["faces"], recorded["mel"], batch=3)
        assert np.abs(mouths.astype(int) - recorded["mouths"]).max() <= 1


def test_the_clip_equals_the_golden_data(golden: Path, networks: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "clip.npz") as recorded:
        frames, boxes, count = list(recorded["frames"]), recorded["boxes"], len(recorded["mel"])
        crops = original.crop(frames, boxes, count)
        np.testing.assert_array_equal(crops, recorded["crops"])
        mouths = original.generate(networks[1], crops, recorded["mel"])
        result = np.stack(list(original.paste(frames, boxes, mouths, count)))
        assert np.abs(result.astype(int) - recorded["result"]).max() <= 1


@pytest.fixture(scope="module")
def stand_in_files(tmp_path_factory: pytest.TempPathFactory) -> generated_media.Files:
    workload = Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32)
    return generated_media.files(workload, tmp_path_factory.mktemp("media"))


def read_result(folder: Path) -> tuple[int, tuple[int, ...]]:
    """Return the number and the shape of the frames in the folder's mp4."""
    capture = cv2.VideoCapture(str(folder / "out.mp4"))
    count = 0
    shape: tuple[int, ...] = ()
    while (read := capture.read())[0]:
        count, shape = count + 1, read[1].shape
    capture.release()
    assert list(folder.iterdir()) == [folder / "out.mp4"]  # the AVI is removed
    return count, shape


@pytest.mark.slow  # every frame of it; the next test samples a video, which takes the same way
def test_a_video_goes_through_all_stages(
    stand_in_weights: Path, stand_in_files: generated_media.Files, networks: tuple[S3FD, Wav2Lip], tmp_path: Path
) -> None:
    torch.set_flush_denormal(True)  # as in the process that measures the original; almost all weights are zero
    files = stand_in_files.face, stand_in_files.speech, tmp_path / "out.mp4"
    stages = original.clip(*files, stand_in_weights / S3FD_FILE, networks[1], executable(), batch=4)
    assert read_result(tmp_path) == (12, (144, 192, 3))  # in the original the last 0.1 s of speech have no frame
    assert list(stages.seconds) == ["decode", "speech", "detection", "generation", "paste and write", "mux"]
    assert stages.scaled == {}


def test_the_networks_process_a_part_of_a_sampled_video(
    stand_in_weights: Path, stand_in_files: generated_media.Files, networks: tuple[S3FD, Wav2Lip], tmp_path: Path
) -> None:
    torch.set_flush_denormal(True)  # as in the process that measures the original; almost all weights are zero
    files = stand_in_files.face, stand_in_files.speech, tmp_path / "out.mp4"
    stages = original.clip(*files, stand_in_weights / S3FD_FILE, networks[1], executable(), sample=Sample(2, 3))
    assert read_result(tmp_path)[0] == 12
    assert stages.scaled == {"detection": (2, 12), "generation": (3, 12)}


def test_a_stage_that_ran_in_part_is_scaled_to_the_whole_and_recorded() -> None:
    stages = Stages()
    with stages.timed("detection"):
        pass
    loading = stages.seconds["detection"]
    with stages.timed("detection", 2, 100):
        time.sleep(0.01)
    assert stages.seconds["detection"] - loading >= 0.5
    assert stages.scaled == {"detection": (2, 100)}


@pytest.mark.parametrize(("name", "size"), [("video-720p-fp32", 16), ("video-1080p-fp32", 15)])
def test_the_detector_has_a_batch_size_of_16_or_as_many_frames_as_24_gib_hold(name: str, size: int) -> None:
    assert original.detection_batch(WORKLOADS[name].width, WORKLOADS[name].height) == size
    assert original.detection_batch(WORKLOADS[name].width, WORKLOADS[name].height, memory=1) == 1


def test_an_image_without_a_face_is_an_error(networks: tuple[S3FD, Wav2Lip]) -> None:
    quiet = S3FD().eval()
    for parameter in quiet.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(ValueError, match="no face in a frame"):
        original.detect(quiet, np.zeros((1, 64, 64, 3), np.uint8))
