"""With the golden fill as checkpoints, the models behind a live Triton reproduce what the original computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedded.server import Triton
from lipsync.face_detection import best_face
from lipsync.mel import HOP_LENGTH
from tests.support.triton_calls import Caller, caller

GREY_LEVELS = 2


@pytest.fixture(scope="module")
def call(golden_triton: Triton) -> Iterator[Caller]:
    with caller(golden_triton.grpc_address) as connection:
        yield connection


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def test_mel_windows_are_the_originals(call: Caller, golden: Path) -> None:
    recorded = _load(golden / "mel.npz")
    cases = json.loads((golden / "windows.json").read_text())
    of_this_sound = [case for case in cases if case["mel_columns"] == recorded["mel"].shape[1]]
    assert len(of_this_sound) >= 2
    for case in of_this_sound:
        windows = call("mel_spectrogram", {"audio": recorded["wav"], "fps": np.array([case["fps"]])})["mel"]
        expected = np.stack([recorded["mel"][:, start : start + 16] for start in case["starts"]])
        np.testing.assert_allclose(windows, expected, atol=1e-3)


def test_there_are_as_many_windows_as_the_original_gives(call: Caller, golden: Path) -> None:
    cases = json.loads((golden / "windows.json").read_text())
    short = [case for case in cases if case["frames"] <= 2000]  # a window is 5 KB: longer clips take too much here
    assert len(short) >= 5
    for case in short:
        audio = np.zeros((case["mel_columns"] - 1) * HOP_LENGTH, np.float32)
        windows = call("mel_spectrogram", {"audio": audio, "fps": np.array([case["fps"]])})["mel"]
        assert len(windows) == case["frames"]


def test_the_best_face_and_its_corners_are_the_originals(call: Caller, golden: Path) -> None:
    recorded = _load(golden / "s3fd.npz")
    found = call("detect_faces", {"frames": recorded["frames"]})
    best = np.concatenate((found["boxes"][:, 0], found["scores"][:, :1]), axis=1)
    np.testing.assert_allclose(best, recorded["best"], rtol=1e-3)
    corners = [best_face(boxes, scores) for boxes, scores in zip(found["boxes"], found["scores"], strict=True)]
    np.testing.assert_array_equal(np.stack(corners), recorded["best_int"])  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["wav2lip", "wav2lip_gan"])
def test_generated_faces_are_the_originals(call: Caller, golden: Path, model: str) -> None:
    recorded = _load(golden / "wav2lip.npz")
    mouths = call(model, {"face": recorded["faces"], "mel": recorded["mel"]})["mouth"]
    np.testing.assert_allclose(mouths.astype(int), recorded["mouths"], atol=GREY_LEVELS)


def _clip(golden: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The recorded clip, and its three frames and boxes looped over the five windows."""
    recorded = _load(golden / "clip.npz")
    order = np.arange(len(recorded["mel"])) % len(recorded["frames"])
    return recorded, {"frames": recorded["frames"][order], "boxes": recorded["boxes"][order]}


def test_crops_are_the_originals(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    np.testing.assert_array_equal(call("face_crop", looped)["faces"], recorded["crops"])


def test_a_clip_with_its_generated_faces_pasted_is_the_originals(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    mouths = call("lipsync", looped | {"mel": recorded["mel"]})["mouths"]
    frames = call("face_paste", looped | {"mouths": mouths})["frames"]
    np.testing.assert_allclose(frames.astype(int), recorded["result"], atol=GREY_LEVELS)


def test_a_clip_in_one_call_is_the_same_as_step_by_step(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    sound = _load(golden / "mel.npz")["wav"][: 16_000 // 2]
    mel = call("mel_spectrogram", {"audio": sound, "fps": np.array([25.0])})["mel"]
    order = np.arange(len(mel)) % len(recorded["frames"])
    looped = {"frames": recorded["frames"][order], "boxes": recorded["boxes"][order]}
    mouths = call("lipsync", looped | {"mel": mel})["mouths"]
    step_by_step = call("face_paste", looped | {"mouths": mouths})["frames"]
    at_once = call("lipsync_clip", looped | {"audio": sound, "fps": np.array([25.0])})["result"]
    np.testing.assert_allclose(at_once.astype(int), step_by_step, atol=1)
