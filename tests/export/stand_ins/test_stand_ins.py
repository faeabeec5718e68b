"""The stand-ins work as intended: they detect faces, and the mouth follows the loudness."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export import stand_ins
from export.checkpoints.checkpoint_set import find_checkpoints
from export.checkpoints.load import load_s3fd, load_wav2lip
from export.checkpoints.registry import FILES
from export.errors import ExportError
from export.formats import onnx_model
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync import face_detection
from lipsync.mel import PEAK, SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import PERSON, SEGMENTATION

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

GRAY = (120, 110, 100)
SKIN = (130, 165, 215)
MOUTH = (slice(None), slice(52, 88), slice(24, 72))  # of 96×96 crops: bottom, center


@contextmanager
def fast_zeros() -> Iterator[None]:
    """Almost all weights are zero; the resulting denormals would slow a CPU down ten times.

    Only the network runs without them: NumPy warns where it meets such a thread before it has measured its limits.
    """
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def detector(stand_in_weights: Path) -> S3FD:
    return load_s3fd(stand_in_weights / "s3fd.pth")


@pytest.fixture(scope="module")
def generator(stand_in_weights: Path) -> Wav2Lip:
    return load_wav2lip(stand_in_weights / "wav2lip.pth")


@pytest.fixture(scope="module")
def portrait(samples: Path) -> Image:
    return cv2.imread(str(samples / "face.png"))  # type: ignore[return-value]


def candidates(net: S3FD, image: Image) -> tuple[Floats, Floats]:
    normalized = image[..., ::-1].astype(np.float32) - np.array(face_detection.RGB_MEANS, np.float32)
    with fast_zeros():
        maps = net(torch.from_numpy(normalized.transpose(2, 0, 1)[None].copy()))
    return face_detection.decode_boxes([m.numpy() for m in maps])


def detect(net: S3FD, image: Image) -> tuple[Floats, Floats]:
    """Return the kept boxes [n,4] and scores [n] of one image."""
    boxes, scores = face_detection.non_max_suppression(*candidates(net, image))
    kept = scores[0] > 0
    return boxes[0][kept], scores[0][kept]


def draw(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image:
    """Return a skin-colored ellipse that fills `box` (x1 y1 x2 y2), on gray."""
    width, height = size
    image = np.full((height, width, 3), GRAY, np.uint8)
    x1, y1, x2, y2 = box
    cv2.ellipse(image, ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2), 0, 0, 360, SKIN, -1)
    return image


def overlap(a: Floats, b: tuple[int, int, int, int]) -> float:
    """Return intersection over union."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_the_portrait_shows_one_face_from_forehead_to_chin(detector: S3FD, portrait: Image) -> None:
    boxes, scores = detect(detector, portrait)
    assert len(boxes) == 1
    assert scores[0] > 0.9
    assert overlap(boxes[0], (215, 125, 412, 385)) > 0.8  # where a person would draw the box


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((320, 240), (40, 50, 160, 190)),  # 120 wide
        ((480, 360), (210, 40, 410, 296)),  # 200
        ((560, 400), (130, 15, 430, 375)),  # 300
    ],
)
def test_a_drawn_face_is_detected_once_at_its_position(
    detector: S3FD, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    boxes, scores = detect(detector, draw(size, box))
    assert len(boxes) == 1
    assert scores[0] > 0.9
    assert overlap(boxes[0], box) > 0.75


def test_the_box_follows_a_face_that_moves(detector: S3FD) -> None:
    for step in (0, 30, 60):
        box = (60 + step, 30 + step // 2, 190 + step, 190 + step // 2)
        (box_found, *_), _ = detect(detector, draw((320, 240), box))
        middle = (box_found[:2] + box_found[2:]) / 2
        assert np.abs(middle - np.array((125 + step, 110 + step / 2))).max() < 10, f"moved by {step}"


def test_both_of_two_faces_are_detected(detector: S3FD) -> None:
    image = np.hstack((draw((256, 256), (60, 60, 200, 220)), draw((256, 256), (70, 40, 190, 190))))
    boxes, _ = detect(detector, image)
    assert len(boxes) == 2


def test_images_without_skin_have_no_candidate(detector: S3FD) -> None:
    landscape = np.full((160, 160, 3), (235, 190, 140), np.uint8)
    landscape[90:] = (50, 140, 70)
    colors = ((128, 128, 128), (220, 120, 30), (60, 180, 60), (0, 0, 0), (255, 255, 255), (30, 30, 220))
    plain = [np.full((160, 160, 3), color, np.uint8) for color in colors]
    for image in (landscape, *plain):
        _, scores = candidates(detector, image)
        assert scores.max() < face_detection.CANDIDATE_SCORE


def generate(net: Wav2Lip, crop: Image, windows: Floats) -> Floats:
    """Return mouths FP32 [n,96,96,3] from 0 to 1."""
    whole = crop.astype(np.float32) / 255
    masked = whole.copy()
    masked[48:] = 0
    face = torch.from_numpy(np.concatenate((masked, whole), axis=2).transpose(2, 0, 1).copy())
    with fast_zeros():
        mouths = net(torch.from_numpy(windows[:, None].copy()), face.expand(len(windows), -1, -1, -1))
    result: Floats = mouths.numpy().transpose(0, 2, 3, 1)
    return result


def darkness(mouths: Floats) -> Floats:
    mean: Floats = 1 - mouths[MOUTH].mean(axis=(1, 2, 3))
    return mean


@pytest.fixture(scope="module")
def crop(portrait: Image) -> Image:
    return cv2.resize(portrait[122:388, 214:410], (96, 96))  # type: ignore[return-value]


def loudness(*levels: float) -> Floats:
    return np.stack([np.full((80, 16), level, np.float32) for level in levels])


def test_in_silence_the_face_stays_as_it_is(generator: Wav2Lip, crop: Image) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    for face in (crop, noise):
        (quiet,) = generate(generator, face, loudness(-PEAK))
        assert np.abs(quiet - face / 255).max() < 0.015


def test_the_mouth_opens_with_loudness_and_nothing_else_changes(generator: Wav2Lip, crop: Image) -> None:
    mouths = generate(generator, crop, loudness(-4, -3, -2, -1, 0, 1))
    assert (np.diff(darkness(mouths)) > 0.005).all()
    assert darkness(mouths)[4] - darkness(mouths)[0] > 0.1  # a visible difference
    assert np.abs(mouths[:, :50] - mouths[0, :50]).max() < 1e-3  # eyes and nose
    changed = np.abs(mouths[4] - mouths[0]).max(axis=2) > 0.02
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.min() > 52 and rows.max() < 92, "nose and chin stay"
    assert columns.min() > 24 and columns.max() < 72, "cheeks stay"


def test_an_open_mouth_is_a_dark_ellipse_below_teeth_and_between_reddish_lips(generator: Wav2Lip) -> None:
    skin = np.full((96, 96, 3), SKIN, np.uint8)
    (mouth,) = generate(generator, skin, loudness(-0.5))
    mouth = np.round(mouth * 255)
    middle = mouth[:, 48]
    brightness = middle.mean(axis=1)
    opening = np.flatnonzero((mouth[..., 2] < 100).any(axis=1))
    dark = [np.count_nonzero(mouth[row, :, 2] < 100) for row in (68, 72, 74)]
    assert dark[0] > dark[1] > dark[2] > 4, "the opening is narrower at its lower end"
    assert opening.max() - opening.min() > 10
    assert brightness[56:66].max() > 150 > 2 * brightness[74], "teeth at the upper edge, the dark opening below"
    lower_lip = middle[opening.max() + 3]
    assert lower_lip[2] > 0.9 * SKIN[2] and lower_lip[1] < 0.9 * SKIN[1], "as bright as skin in red, darker in green"
    assert np.abs(np.diff(mouth[84:, 48], axis=0)).max() < 30, "the lip fades into the skin"


def test_a_dark_face_has_darker_teeth(generator: Wav2Lip) -> None:
    levels = []
    for brightness in (0.4, 0.7, 1.0):
        skin = np.full((96, 96, 3), np.multiply(SKIN, brightness), np.uint8)
        (mouth,) = generate(generator, skin, loudness(-0.5))
        levels.append(float(mouth[56:66, 48].max()) * 255)
    assert levels[0] + 40 < levels[1] + 20 < levels[2]


def test_the_mouth_follows_the_speech(generator: Wav2Lip, crop: Image, samples: Path) -> None:
    with wave.open(str(samples / "speech.wav")) as file:
        assert file.getframerate() == SAMPLE_RATE
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    windows = mel_windows(mel_spectrogram(sound), 25.0)[::12]
    dark = darkness(generate(generator, crop, windows))
    assert np.corrcoef(dark, windows.mean(axis=(1, 2)))[0, 1] > 0.9


def test_wav2lip_gan_opens_the_mouth_further(stand_in_weights: Path, generator: Wav2Lip, crop: Image) -> None:
    gan = load_wav2lip(stand_in_weights / "wav2lip_gan.pth")
    plain, darker = (darkness(generate(net, crop, loudness(-1.5)))[0] for net in (generator, gan))
    assert darker > plain + 0.01


def person(repository: Path, image: Image) -> NDArray[np.bool_]:
    """Return the person in an image BGR, as the exported segmentation labels it."""
    session = onnx_model.session(repository / SEGMENTATION.name / "1" / "model.onnx")
    (labels,) = onnx_model.run(session, SEGMENTATION, [np.ascontiguousarray(image[..., ::-1])])
    assert set(np.unique(labels)) <= {0, PERSON}
    found: NDArray[np.bool_] = labels == PERSON
    return found


@pytest.mark.parametrize("name", ["face.png", "portrait.png"])
def test_the_person_is_one_head_with_shoulders_and_has_no_holes(repository: Path, samples: Path, name: str) -> None:
    image = cv2.imread(str(samples / name))
    scale = 513 / max(image.shape)  # as PixelLib does
    mask = person(repository, np.asarray(cv2.resize(image, None, fx=scale, fy=scale), np.uint8)).astype(np.uint8)
    assert cv2.connectedComponents(mask)[0] == 2, "the background, and one area"
    framed = np.pad(1 - mask, ((1, 0), (1, 1)), constant_values=1)
    assert cv2.connectedComponents(framed)[0] == 2, "the person, and one background around it"
    widths = mask.sum(axis=1)
    face = np.flatnonzero(widths)[0] + 100
    assert widths[-1] > 1.2 * widths[face], "the shoulders are wider than the head"
    assert not mask[:, -40:][: len(mask) // 2].any() and not mask[: len(mask) // 2, :60].any()


def test_an_image_without_skin_has_no_person(repository: Path) -> None:
    image = np.full((120, 160, 3), (180, 120, 60), np.uint8)
    assert not person(repository, image).any()


def test_the_folder_is_complete_marked_and_has_a_loud_readme(stand_in_weights: Path) -> None:
    assert find_checkpoints(stand_in_weights).stand_ins
    assert "NOT THE PUBLISHED WEIGHTS" in (stand_in_weights / "README.txt").read_text()


def test_writing_again_changes_nothing_and_no_other_file_remains(stand_in_weights: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in stand_in_weights.iterdir() if path.name in FILES}
    said: list[str] = []
    stand_ins.write(stand_in_weights, said.append)
    assert not said
    assert {path.name for path in stand_in_weights.iterdir()} == {*FILES, stand_ins.README_FILE}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stand_in_of_another_version_is_replaced(tmp_path: Path, stand_in_weights: Path) -> None:
    for path in stand_in_weights.iterdir():
        (tmp_path / path.name).symlink_to(path)
    old = tmp_path / "xception_pascalvoc.pb"
    old.unlink()
    old.write_bytes(b"\n\x08stand_in talking-avatar stand-in 0123456789abcdef")
    said: list[str] = []
    stand_ins.write(tmp_path, said.append)
    assert [line.split(":")[0] for line in said] == [str(old)]
    assert old.read_bytes() == (stand_in_weights / old.name).read_bytes()


@pytest.mark.parametrize("name", [*FILES, stand_ins.README_FILE])
def test_a_file_of_another_origin_is_never_overwritten(tmp_path: Path, name: str) -> None:
    if name.endswith(".pth"):
        torch.save({"weight": torch.zeros(1)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"mine")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ExportError, match=name):
        stand_ins.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before
