"""Every model of the table on a live server: loaded, configured as the table says, and called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from embedded.server import Triton
from lipsync.tensors import FACES, MODELS, S3FD_BATCH, WAV2LIP_BATCH, Model
from tests.support.triton_calls import Caller, caller, refusal

NAMES = [model.name for model in MODELS]
ANSWERING = [model for model in MODELS if not model.streams]  # the others have tests of their own
BOX = [80, 60, 240, 260]


@pytest.fixture(scope="module")
def call(triton: Triton) -> Iterator[Caller]:
    with caller(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module")
def portrait(samples: Path) -> np.ndarray:
    """UINT8 [1,320,320,3] BGR."""
    picture = cv2.imread(str(samples / "portrait.png"))
    return cv2.resize(picture, (320, 320))[None]


def _windows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, (count, 80, 16)).astype(np.float32)


def _boxes(count: int) -> np.ndarray:
    return np.array([BOX] * count, np.int32)


# inputs for a model, and the shapes that its outputs must have then
Case = tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]


def _sensible(model: str, portrait: np.ndarray) -> Case:
    """Inputs for a model, and the shapes that its outputs must have then."""
    audio = {"audio": np.zeros(16_000, np.float32), "fps": np.array([25.0])}
    faces = np.zeros((3, 96, 96, 3), np.uint8)
    still = {"frames": portrait, "boxes": _boxes(1)}
    found = {"boxes": (1, FACES, 4), "scores": (1, FACES)}
    candidates = {"boxes": np.zeros((1, 1024, 4), np.float32), "scores": np.zeros((1, 1024), np.float32)}
    speak: Case = ({"face": faces, "mel": _windows(3)}, {"mouth": (3, 96, 96, 3)})
    lips: Case = (still | {"mel": _windows(3)}, {"mouths": (3, 96, 96, 3)})
    cases: dict[str, Case] = {
        "mel_spectrogram": (audio, {"mel": (22, 80, 16)}),
        "s3fd": ({"image": portrait}, {"boxes": (1, 1024, 4), "scores": (1, 1024)}),
        "face_nms": (candidates, found),
        "detect_faces": ({"frames": portrait}, found),
        "face_crop": (still, {"faces": (1, 96, 96, 3)}),
        "wav2lip": speak,
        "wav2lip_gan": speak,
        "lipsync": lips,
        "lipsync_gan": lips,
        "face_paste": (still | {"mouths": faces}, {"frames": (3, 320, 320, 3)}),
        "lipsync_clip": (still | audio, {"result": (22, 320, 320, 3)}),
        "segmentation": ({"image": portrait[0]}, {"labels": (320, 320)}),
    }
    return cases[model]


def test_the_server_serves_the_models_of_the_table_and_no_others(call: Caller) -> None:
    index = call.client.get_model_repository_index().models
    assert sorted(entry.name for entry in index) == sorted(NAMES)
    assert {entry.state for entry in index} == {"READY"}


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_a_models_config_is_the_tables(call: Caller, model: Model) -> None:
    config = call.client.get_model_config(model.name).config
    assert config.max_batch_size == model.max_batch_size
    for there, table in ((config.input, model.inputs), (config.output, model.outputs)):
        assert [_described(tensor) for tensor in there] == [
            (t.name, t.dtype.replace("BYTES", "STRING"), t.shape) for t in table
        ]
    assert [tensor.optional for tensor in config.input] == [tensor.optional for tensor in model.inputs]


@pytest.mark.parametrize("model", ["s3fd", "wav2lip", "wav2lip_gan", "segmentation"])
def test_a_net_runs_as_one_instance_and_says_what_checkpoint_it_is(call: Caller, model: str) -> None:
    config = call.client.get_model_config(model).config
    assert [group.count for group in config.instance_group] == [1]
    assert config.parameters["checkpoint"].string_value == "stand-in"


@pytest.mark.parametrize("model", ANSWERING, ids=lambda model: model.name)
def test_a_model_answers_with_the_tables_tensors(call: Caller, portrait: np.ndarray, model: Model) -> None:
    inputs, shapes = _sensible(model.name, portrait)
    outputs = call(model.name, inputs)
    assert {name: array.shape for name, array in outputs.items()} == shapes
    for tensor in model.outputs:
        assert tensor.accepts(outputs[tensor.name], batched=model.max_batch_size > 0)


def test_the_stand_in_finds_the_face_of_the_portrait(call: Caller, samples: Path) -> None:
    picture = cv2.imread(str(samples / "portrait.png"))
    scale = 480 / max(picture.shape[:2])
    frames = cv2.resize(picture, None, fx=scale, fy=scale)[None]
    assert call("detect_faces", {"frames": frames})["scores"][0, 0] > 0.5


def test_detect_faces_is_s3fd_and_then_face_nms(call: Caller, portrait: np.ndarray) -> None:
    frames = np.concatenate((portrait, portrait[:, :, ::-1]))
    candidates = call("s3fd", {"image": frames})
    by_hand = call("face_nms", candidates)
    at_once = call("detect_faces", {"frames": frames})
    for name in ("boxes", "scores"):
        np.testing.assert_array_equal(at_once[name], by_hand[name])


@pytest.mark.parametrize("model", ["lipsync", "lipsync_gan"])
@pytest.mark.parametrize(("frames", "boxes"), [(1, 1), (4, 4), (1, 4), (4, 1)])
def test_one_frame_or_one_a_window_and_one_box_or_one_a_window(
    call: Caller, portrait: np.ndarray, model: str, frames: int, boxes: int
) -> None:
    net = model.replace("lipsync", "wav2lip")
    inputs = {"frames": np.repeat(portrait, frames, 0), "boxes": _boxes(boxes), "mel": _windows(4)}
    mouths = call(model, inputs)["mouths"]
    (crop,) = call("face_crop", {"frames": portrait, "boxes": _boxes(1)})["faces"]
    by_hand = call(net, {"face": np.stack([crop] * 4), "mel": inputs["mel"]})["mouth"]
    assert mouths.shape == (4, 96, 96, 3)
    # truncated to UINT8: a batch of another size may round the other way
    np.testing.assert_allclose(mouths.astype(int), by_hand, atol=1)


def test_one_output_of_two_comes_alone(call: Caller, portrait: np.ndarray) -> None:
    candidates = call("s3fd", {"image": portrait})
    assert set(call("face_nms", candidates, outputs=["scores"])) == {"scores"}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("wav2lip", lambda n: {"face": np.zeros((n, 96, 96, 3), np.uint8), "mel": _windows(n)}),
        ("lipsync", lambda n: {"frames": np.zeros((1, 320, 320, 3), np.uint8), "boxes": _boxes(1), "mel": _windows(n)}),
    ],
    ids=["wav2lip", "lipsync"],
)
def test_more_windows_than_a_batch_are_refused_with_the_limit(
    call: Caller, model: str, inputs: Callable[[int], dict[str, np.ndarray]]
) -> None:
    status, message = refusal(call, model, inputs(WAV2LIP_BATCH + 1))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert f"<= {WAV2LIP_BATCH}" in message


def test_more_frames_than_a_batch_of_detection_are_refused_with_the_limit(call: Caller) -> None:
    frames = np.zeros((S3FD_BATCH + 1, 64, 64, 3), np.uint8)
    status, message = refusal(call, "detect_faces", {"frames": frames})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert f"<= {S3FD_BATCH}" in message


def test_a_tensor_of_the_wrong_type_is_refused_by_the_server(call: Caller) -> None:
    wrong = {"face": np.zeros((1, 96, 96, 3), np.float32), "mel": _windows(1)}
    status, message = refusal(call, "wav2lip", wrong)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "face" in message


def test_silence_gives_the_lowest_mel_everywhere(call: Caller) -> None:
    mel = call("mel_spectrogram", {"audio": np.zeros(16_000, np.float32), "fps": np.array([25.0])})["mel"]
    np.testing.assert_array_equal(mel, np.full_like(mel, -4))


def _described(tensor: pb.ModelInput | pb.ModelOutput) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, pb.DataType.Name(tensor.data_type).removeprefix("TYPE_"), tuple(tensor.dims)
