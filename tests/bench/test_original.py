from pathlib import Path

import numpy as np
import pytest
import torch
from golden_fill import golden_state

from bench import original
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync.crop import paste


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
        looped = np.arange(len(recorded["mel"])) % len(recorded["frames"])
        mouths = original.generate(nets[1], recorded["crops"], recorded["mel"])
        result = paste(recorded["frames"][looped], recorded["boxes"][looped], mouths)
        assert np.abs(result.astype(int) - recorded["result"]).max() <= 1


def test_a_picture_without_a_face_is_an_error(nets: tuple[S3FD, Wav2Lip]) -> None:
    quiet = S3FD().eval()
    for parameter in quiet.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(ValueError, match="without a face"):
        original.detect(quiet, np.zeros((1, 64, 64, 3), np.uint8))
