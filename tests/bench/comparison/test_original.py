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

# librosa.load, which the original uses, looks for its further decoders in old modules of Python's own
pytestmark = pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning")


@pytest.fixture(scope="module")
def nets(golden: Path) -> tuple[S3FD, Wav2Lip]:
    detector, generator = S3FD().eval(), Wav2Lip().eval()
    detector.load_state_dict(golden_state(golden / "s3fd_state.json"))
    generator.load_state_dict(golden_state(golden / "wav2lip_state.json"))
    return detector, generator


def test_its_detection_is_the_originals(golden: Path, nets: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "s3fd.npz") as recorded:
        np.testing.assert_array_equal(original.detect(nets[0], recorded["frames"]), recorded["best_int"])


def test_its_mouths_are_the_originals(golden: Path, nets: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "wav2lip.npz") as recorded:
        mouths = original.generate(nets[1], recorded["faces"], recorded["mel"], batch=3)
        assert np.abs(mouths.astype(int) - recorded["mouths"]).max() <= 1


def test_its_clip_is_the_originals(golden: Path, nets: tuple[S3FD, Wav2Lip]) -> None:
    with np.load(golden / "clip.npz") as recorded:
        frames, at, count = list(recorded["frames"]), recorded["boxes"], len(recorded["mel"])
        crops = original.crop(frames, at, count)
        np.testing.assert_array_equal(crops, recorded["crops"])
        mouths = original.generate(nets[1], crops, recorded["mel"])
        result = np.stack(list(original.paste(frames, at, mouths, count)))
        assert np.abs(result.astype(int) - recorded["result"]).max() <= 1


@pytest.fixture(scope="module")
def stand_in_files(tmp_path_factory: pytest.TempPathFactory) -> generated_media.Files:
    work = Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32)
    return generated_media.files(work, tmp_path_factory.mktemp("media"))


def made(folder: Path) -> tuple[int, tuple[int, ...]]:
    """Frames and shape of what lies there as an mp4."""
    capture = cv2.VideoCapture(str(folder / "out.mp4"))
    count, shape = 0, ()
    while (read := capture.read())[0]:
        count, shape = count + 1, read[1].shape
    capture.release()
    assert list(folder.iterdir()) == [folder / "out.mp4"]  # and no AVI beside it
    return count, shape


def test_a_video_is_read_looked_at_spoken_and_written(
    stand_in_weights: Path, stand_in_files: generated_media.Files, nets: tuple[S3FD, Wav2Lip], tmp_path: Path
) -> None:
    files = stand_in_files.face, stand_in_files.speech, tmp_path / "out.mp4"
    stages = original.clip(*files, stand_in_weights / S3FD_FILE, nets[1], executable(), batch=4)
    assert made(tmp_path) == (12, (144, 192, 3))  # the original's last 0.1 s of speech has no picture
    assert list(stages.seconds) == ["decode", "speech", "detection", "generation", "paste and write", "mux"]
    assert stages.scaled == {}


def test_of_a_sampled_video_the_two_nets_see_a_part(
    stand_in_weights: Path, stand_in_files: generated_media.Files, nets: tuple[S3FD, Wav2Lip], tmp_path: Path
) -> None:
    files = stand_in_files.face, stand_in_files.speech, tmp_path / "out.mp4"
    stages = original.clip(*files, stand_in_weights / S3FD_FILE, nets[1], executable(), sample=Sample(2, 3))
    assert made(tmp_path)[0] == 12
    assert stages.scaled == {"detection": (2, 12), "generation": (3, 12)}


def test_a_stage_of_which_a_part_ran_is_scaled_to_the_whole_and_says_so() -> None:
    stages = Stages()
    with stages.timed("detection"):
        pass
    loading = stages.seconds["detection"]
    with stages.timed("detection", 2, 100):
        time.sleep(0.01)
    assert stages.seconds["detection"] - loading >= 0.5
    assert stages.scaled == {"detection": (2, 100)}


@pytest.mark.parametrize(("name", "pictures"), [("video-720p-fp32", 16), ("video-1080p-fp32", 15)])
def test_the_detector_gets_16_pictures_or_what_24_gib_hold(name: str, pictures: int) -> None:
    assert original.detection_batch(WORKLOADS[name].width, WORKLOADS[name].height) == pictures
    assert original.detection_batch(WORKLOADS[name].width, WORKLOADS[name].height, memory=1) == 1


def test_a_picture_without_a_face_is_an_error(nets: tuple[S3FD, Wav2Lip]) -> None:
    quiet = S3FD().eval()
    for parameter in quiet.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(ValueError, match="without a face"):
        original.detect(quiet, np.zeros((1, 64, 64, 3), np.uint8))
