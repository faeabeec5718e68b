"""Every model of the table is loaded on a live server, has the config of the table, and can be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from embedded.server import Triton
from lipsync.tensors import FACES, MODELS, S3FD_BATCH, WAV2LIP_BATCH, Model
from tests.support.triton_calls import Caller, caller, rejection

NAMES = [model.name for model in MODELS]
REQUEST_RESPONSE = [model for model in MODELS if not model.streams]  # test_avatar and test_live test the others
BOX = [80, 60, 240, 260]


@pytest.fixture(scope="module")
def call(triton: Triton) -> Iterator[Caller]:
    with caller(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module")
def portrait(samples: Path) -> np.ndarray:
    """UINT8 [1,320,320,3] BGR."""
    image = cv2.imread(str(samples / "portrait.png"))
    return cv2.resize(image, (320, 320))[None]


def _windows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, (count, 80, 16)).astype(np.float32)


def _boxes(count: int) -> np.ndarray:
    return np.array([BOX] * count, np.int32)


# inputs of a model, and the shapes of the outputs for them
Case = tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]


def _case(model: str, portrait: np.ndarray) -> Case:
    """Return valid inputs of a model, and the shapes of the outputs for them."""
    audio = {"audio": np.zeros(16_000, np.float32), "fps": np.array([25.0])}
    faces = np.zeros((3, 96, 96, 3), np.uint8)
    still = {"frames": portrait, "boxes": _boxes(1)}
    faces_found = {"boxes": (1, FACES, 4), "scores": (1, FACES)}
    candidates = {"boxes": np.zeros((1, 1024, 4), np.float32), "scores": np.zeros((1, 1024), np.float32)}
    generator: Case = ({"face": faces, "mel": _windows(3)}, {"mouth": (3, 96, 96, 3)})
    lipsync: Case = (still | {"mel": _windows(3)}, {"mouths": (3, 96, 96, 3)})
    cases: dict[str, Case] = {
        "mel_spectrogram": (audio, {"mel": (22, 80, 16)}),
        "s3fd": ({"image": portrait}, {"boxes": (1, 1024, 4), "scores": (1, 1024)}),
        "face_nms": (candidates, faces_found),
        "detect_faces": ({"frames": portrait}, faces_found),
        "face_crop": (still, {"faces": (1, 96, 96, 3)}),
        "wav2lip": generator,
        "wav2lip_gan": generator,
        "lipsync": lipsync,
        "lipsync_gan": lipsync,
        "face_paste": (still | {"mouths": faces}, {"frames": (3, 320, 320, 3)}),
        "lipsync_clip": (still | audio, {"result": (22, 320, 320, 3)}),
        "segmentation": ({"image": portrait[0]}, {"labels": (320, 320)}),
    }
    return cases[model]


def test_the_server_serves_the_models_of_the_table_and_no_others(call: Caller, triton: Triton) -> None:
    index = call.client.get_model_repository_index(headers=triton.admin_headers).models
    assert sorted(entry.name for entry in index) == sorted(NAMES)
    assert {entry.state for entry in index} == {"READY"}


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_the_config_of_a_model_is_that_of_the_table(call: Caller, model: Model) -> None:
    config = call.client.get_model_config(model.name).config
    assert config.max_batch_size == model.max_batch_size
    for served, table in ((config.input, model.inputs), (config.output, model.outputs)):
        assert [_described(tensor) for tensor in served] == [
            (t.name, t.dtype.replace("BYTES", "STRING"), t.shape) for t in table
        ]
    assert [tensor.optional for tensor in config.input] == [tensor.optional for tensor in model.inputs]


@pytest.mark.parametrize("model", ["s3fd", "wav2lip", "wav2lip_gan", "segmentation"])
def test_a_network_runs_as_one_instance_and_its_config_names_its_checkpoint(call: Caller, model: str) -> None:
    config = call.client.get_model_config(model).config
    assert [group.count for group in config.instance_group] == [1]
    assert config.parameters["checkpoint"].string_value == "stand-in"


@pytest.mark.parametrize("model", REQUEST_RESPONSE, ids=lambda model: model.name)
def test_a_model_returns_the_tensors_of_the_table(call: Caller, portrait: np.ndarray, model: Model) -> None:
    inputs, shapes = _case(model.name, portrait)
    outputs = call(model.name, inputs)
    assert {name: array.shape for name, array in outputs.items()} == shapes
    for tensor in model.outputs:
        assert tensor.accepts(outputs[tensor.name], batched=model.max_batch_size > 0)


def test_the_stand_in_detects_the_face_of_the_portrait(call: Caller, samples: Path) -> None:
    image = cv2.imread(str(samples / "portrait.png"))
    scale = 480 / max(image.shape[:2])
    frames = cv2.resize(image, None, fx=scale, fy=scale)[None]
    assert call("detect_faces", {"frames": frames})["scores"][0, 0] > 0.5


def test_detect_faces_equals_s3fd_followed_by_face_nms(call: Caller, portrait: np.ndarray) -> None:
    frames = np.concatenate((portrait, portrait[:, :, ::-1]))
    candidates = call("s3fd", {"image": frames})
    step_by_step = call("face_nms", candidates)
    at_once = call("detect_faces", {"frames": frames})
    for name in ("boxes", "scores"):
        np.testing.assert_array_equal(at_once[name], step_by_step[name])


@pytest.mark.parametrize("model", ["lipsync", "lipsync_gan"])
@pytest.mark.parametrize(("frames", "boxes"), [(1, 1), (4, 4), (1, 4), (4, 1)])
def test_frames_and_boxes_may_be_one_or_one_per_window(
    call: Caller, portrait: np.ndarray, model: str, frames: int, boxes: int
) -> None:
    network = model.replace("lipsync", "wav2lip")
    inputs = {"frames": np.repeat(portrait, frames, 0), "boxes": _boxes(boxes), "mel": _windows(4)}
    mouths = call(model, inputs)["mouths"]
    (crop,) = call("face_crop", {"frames": portrait, "boxes": _boxes(1)})["faces"]
    step_by_step = call(network, {"face": np.stack([crop] * 4), "mel": inputs["mel"]})["mouth"]
    assert mouths.shape == (4, 96, 96, 3)
    # a batch of another size may round differently
    np.testing.assert_allclose(mouths.astype(int), step_by_step, atol=1)


def test_only_the_requested_output_is_sent(call: Caller, portrait: np.ndarray) -> None:
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
def test_more_windows_than_a_batch_are_rejected_with_the_limit(
    call: Caller, model: str, inputs: Callable[[int], dict[str, np.ndarray]]
) -> None:
    status, message = rejection(call, model, inputs(WAV2LIP_BATCH + 1))
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert f"<= {WAV2LIP_BATCH}" in message


def test_more_frames_than_a_detection_batch_are_rejected_with_the_limit(call: Caller) -> None:
    frames = np.zeros((S3FD_BATCH + 1, 64, 64, 3), np.uint8)
    status, message = rejection(call, "detect_faces", {"frames": frames})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert f"<= {S3FD_BATCH}" in message


def test_a_tensor_of_the_wrong_type_is_rejected(call: Caller) -> None:
    wrong = {"face": np.zeros((1, 96, 96, 3), np.float32), "mel": _windows(1)}
    status, message = rejection(call, "wav2lip", wrong)
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "face" in message


def test_silence_has_the_lowest_mel_value_everywhere(call: Caller) -> None:
    mel = call("mel_spectrogram", {"audio": np.zeros(16_000, np.float32), "fps": np.array([25.0])})["mel"]
    np.testing.assert_array_equal(mel, np.full_like(mel, -4))


def _described(tensor: pb.ModelInput | pb.ModelOutput) -> tuple[str, str, tuple[int, ...]]:
    return tensor.name, pb.DataType.Name(tensor.data_type).removeprefix("TYPE_"), tuple(tensor.dims)
