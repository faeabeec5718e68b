"""With the golden weights, the models of a live Triton reproduce the results of the original code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedded.server import Triton
from lipsync.face_detection import best_face
from lipsync.mel import HOP_LENGTH
from tests.support.golden_exports import GoldenBuilder, write_repository
from tests.support.triton_calls import Caller, caller

GRAY_LEVELS = 2


@pytest.fixture(scope="module")
def call(golden_builders: dict[str, GoldenBuilder], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    repository = tmp_path_factory.mktemp("golden")
    write_repository(golden_builders, repository)
    with Triton(repository) as triton, caller(triton.grpc_address) as connection:
        yield connection


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def test_mel_windows_equal_those_of_the_original(call: Caller, golden: Path) -> None:
    recorded = _load(golden / "mel.npz")
    cases = json.loads((golden / "windows.json").read_text())
    of_this_audio = [case for case in cases if case["mel_columns"] == recorded["mel"].shape[1]]
    assert len(of_this_audio) >= 2
    for case in of_this_audio:
        windows = call("mel_spectrogram", {"audio": recorded["wav"], "fps": np.array([case["fps"]])})["mel"]
        expected = np.stack([recorded["mel"][:, start : start + 16] for start in case["starts"]])
        np.testing.assert_allclose(windows, expected, atol=1e-3)


def test_the_number_of_windows_is_that_of_the_original(call: Caller, golden: Path) -> None:
    cases = json.loads((golden / "windows.json").read_text())
    # a window is 5 KB: longer clips would take too much memory
    short = [case for case in cases if case["frames"] <= 2000]
    assert len(short) >= 5
    for case in short:
        audio = np.zeros((case["mel_columns"] - 1) * HOP_LENGTH, np.float32)
        windows = call("mel_spectrogram", {"audio": audio, "fps": np.array([case["fps"]])})["mel"]
        assert len(windows) == case["frames"]


def test_the_best_face_and_its_corners_equal_those_of_the_original(call: Caller, golden: Path) -> None:
    recorded = _load(golden / "s3fd.npz")
    detected = call("detect_faces", {"frames": recorded["frames"]})
    best = np.concatenate((detected["boxes"][:, 0], detected["scores"][:, :1]), axis=1)
    np.testing.assert_allclose(best, recorded["best"], rtol=1e-3)
    corners = [best_face(boxes, scores) for boxes, scores in zip(detected["boxes"], detected["scores"], strict=True)]
    np.testing.assert_array_equal(np.stack(corners), recorded["best_int"])  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["wav2lip", "wav2lip_gan"])
def test_generated_faces_equal_those_of_the_original(call: Caller, golden: Path, model: str) -> None:
    recorded = _load(golden / "wav2lip.npz")
    mouths = call(model, {"face": recorded["faces"], "mel": recorded["mel"]})["mouth"]
    np.testing.assert_allclose(mouths.astype(int), recorded["mouths"], atol=GRAY_LEVELS)


def _clip(golden: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the recorded clip, and its three frames and boxes looped over its five windows."""
    recorded = _load(golden / "clip.npz")
    order = np.arange(len(recorded["mel"])) % len(recorded["frames"])
    return recorded, {"frames": recorded["frames"][order], "boxes": recorded["boxes"][order]}


def test_crops_equal_those_of_the_original(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    np.testing.assert_array_equal(call("face_crop", looped)["faces"], recorded["crops"])


def test_a_clip_with_generated_faces_equals_that_of_the_original(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    mouths = call("lipsync", looped | {"mel": recorded["mel"]})["mouths"]
    frames = call("face_paste", looped | {"mouths": mouths})["frames"]
    np.testing.assert_allclose(frames.astype(int), recorded["result"], atol=GRAY_LEVELS)


def test_a_clip_in_one_call_equals_the_result_of_single_steps(call: Caller, golden: Path) -> None:
    recorded, looped = _clip(golden)
    audio = _load(golden / "mel.npz")["wav"][: 16_000 // 2]
    mel = call("mel_spectrogram", {"audio": audio, "fps": np.array([25.0])})["mel"]
    order = np.arange(len(mel)) % len(recorded["frames"])
    looped = {"frames": recorded["frames"][order], "boxes": recorded["boxes"][order]}
    mouths = call("lipsync", looped | {"mel": mel})["mouths"]
    step_by_step = call("face_paste", looped | {"mouths": mouths})["frames"]
    at_once = call("lipsync_clip", looped | {"audio": audio, "fps": np.array([25.0])})["result"]
    np.testing.assert_allclose(at_once.astype(int), step_by_step, atol=1)
