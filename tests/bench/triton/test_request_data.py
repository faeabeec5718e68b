"""The committed inputs of perf_analyzer: one file per public model, up to date, with real content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.__main__ import main
from bench.comparison import original
from bench.paths import REQUEST_DATA
from bench.triton import request_data
from bench.triton.request_data import Inputs
from embedded.server import Triton
from export.checkpoints.load import load_s3fd
from export.checkpoints.registry import S3FD_FILE
from lipsync.boxes import iou
from lipsync.tensors import AVATAR, DETECT_FACES, FACE_NMS, LIPSYNC_CLIP, LIVE, MODELS, S3FD, WAV2LIP, Model
from tests.support.triton_calls import caller
from tests.support.triton_streams import LiveConnection, make_request, send_request, stub

NAMES = [model.name for model in MODELS]
every_model = pytest.mark.parametrize("model", MODELS, ids=NAMES)
REQUEST_RESPONSE = [model for model in MODELS if not model.streams]
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def generated() -> dict[str, Inputs]:
    return {inputs.model.name: inputs for inputs in request_data.make_inputs()}


def test_there_is_an_up_to_date_file_for_each_model(generated: dict[str, Inputs]) -> None:
    assert request_data.outdated(REQUEST_DATA, list(generated.values())) == {}
    assert {path.name for path in REQUEST_DATA.glob("*.json")} == {f"{name}.json" for name in NAMES}


@every_model
def test_a_file_is_small_and_names_its_model(model: Model) -> None:
    path = REQUEST_DATA / request_data.file_name(model)
    assert path.stat().st_size < MEGABYTE
    assert json.loads(path.read_text())["about"].startswith(f"{model.name}: ")


@every_model
def test_the_arrays_fit_the_tensors_of_the_model_and_are_not_constant(
    generated: dict[str, Inputs], model: Model
) -> None:
    assert generated[model.name].frames > 0
    for arrays in generated[model.name].requests:
        for tensor, array in zip(model.inputs, arrays, strict=True):
            if array is None:
                assert tensor.optional, tensor.name
                continue
            assert tensor.accepts(array)
            assert array.size <= 1 or array.std() > 0, tensor.name


@pytest.mark.parametrize("model", REQUEST_RESPONSE, ids=lambda model: model.name)
def test_a_model_returns_as_many_frames_as_its_file_says(
    triton: Triton, generated: dict[str, Inputs], model: Model
) -> None:
    inputs = generated[model.name]
    names = [tensor.name for tensor in model.inputs]
    request = [array[None] if model.max_batch_size else array for array in inputs.requests[0] if array is not None]
    with caller(triton.grpc_address) as call:
        outputs = call(model.name, dict(zip(names, request, strict=True)))
    first = outputs[model.outputs[0].name]
    assert (len(first) if first.ndim > 2 else 1) == inputs.frames
    if model in (DETECT_FACES, FACE_NMS):
        scores = outputs[model.outputs[1].name]
        assert (scores[:, 0] > 0.5).all()  # the face is detected


def test_the_face_box_of_the_files_is_where_the_detector_finds_the_face(
    stand_in_weights: Path, generated: dict[str, Inputs]
) -> None:
    (image,), (_, _, _, boxes) = generated[S3FD.name].requests[0], generated[LIPSYNC_CLIP.name].requests[0]
    assert image is not None
    assert boxes is not None
    (found,) = original.detect(load_s3fd(stand_in_weights / S3FD_FILE), [image])
    assert iou(found, boxes)[0] > 0.4


def test_a_job_has_as_many_frames_as_its_file_says(triton: Triton, generated: dict[str, Inputs]) -> None:
    (tensors,) = _tensors(generated[AVATAR.name])
    with stub(triton.grpc_address) as server:
        responses = send_request(server, make_request(AVATAR.name, **tensors))
    assert responses.summary is not None, responses.error
    assert responses.summary["frames"] == generated[AVATAR.name].frames
    assert responses.summary["without_face"] == 0
    assert responses.video


def test_a_session_has_as_many_frames_as_its_file_says_and_steps(triton: Triton, generated: dict[str, Inputs]) -> None:
    steps = _tensors(generated[LIVE.name])
    with stub(triton.grpc_address) as server:
        connection = LiveConnection(server, 7_000_001)
        for number, tensors in enumerate(steps, 1):
            connection.send(start=number == 1, end=number == len(steps), **tensors)
        responses = connection.receive(len(steps))
    assert responses.summary is not None, responses.error
    assert len(responses.frames) == responses.summary["frames"] == generated[LIVE.name].frames == len(steps)
    assert responses.summary["without_face"] == 0
    assert {"jpeg", "box"} <= responses.frames[0].keys()


def test_a_sequence_is_one_stream_of_steps_without_omitted_inputs(tmp_path: Path, generated: dict[str, Inputs]) -> None:
    whole = json.loads(request_data.render(generated[LIVE.name]))
    (steps,) = whole["data"]
    assert [sorted(step) for step in steps] == [["face_file", "format"], *[["pcm"]] * (len(steps) - 1)]
    assert steps[-1]["pcm"] == {"content": [], "shape": [0]}
    whole["data"] = steps
    (tmp_path / "live.json").write_text(json.dumps(whole))
    assert "does not fit" in request_data.outdated(tmp_path, [generated[LIVE.name]])["live.json"]


def test_a_written_file_is_read_back_and_up_to_date(tmp_path: Path, generated: dict[str, Inputs]) -> None:
    assert main(["perf-inputs", "--dir", str(tmp_path), "--check"]) == 1
    assert main(["perf-inputs", "--dir", str(tmp_path)]) == 0
    assert main(["perf-inputs", "--dir", str(tmp_path), "--check"]) == 0
    for model in MODELS:
        written = request_data.read(tmp_path / request_data.file_name(model), model)
        for ours, theirs in zip(written.requests, generated[model.name].requests, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert (a is None) == (b is None)
                if a is not None and b is not None:
                    np.testing.assert_array_equal(a, b)


def test_rounding_on_another_processor_is_no_difference_but_other_content_is(
    tmp_path: Path, generated: dict[str, Inputs]
) -> None:
    def outdated(change: float) -> dict[str, str]:
        wav2lip = generated[WAV2LIP.name]
        requests = [(face, mel + np.float32(change)) for face, mel in wav2lip.requests if mel is not None]
        (tmp_path / "wav2lip.json").write_text(request_data.render(replace(wav2lip, requests=requests)))
        return request_data.outdated(tmp_path, [wav2lip])

    assert outdated(1e-5) == {}
    assert outdated(0.1) == {"wav2lip.json": "was made from other samples"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[0].update(other=data[0]["face"]), "other: not an input"),
        (lambda data: data[0]["face"].update(shape=[48, 192, 3]), "face: UINT8"),
        (lambda data: data[0].pop("mel"), "mel"),
        (lambda data: data.clear(), "other samples"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, generated: dict[str, Inputs], change: Callable[[list], object], reason: str
) -> None:
    whole = json.loads(request_data.render(generated[WAV2LIP.name]))
    change(whole["data"])
    (tmp_path / "wav2lip.json").write_text(json.dumps(whole))
    (tmp_path / "none.json").write_text("{}")
    outdated = request_data.outdated(tmp_path, [generated[WAV2LIP.name]])
    assert reason in outdated["wav2lip.json"]
    assert outdated["none.json"] == "belongs to no model"


def _tensors(inputs: Inputs) -> list[dict[str, bytes | str | np.ndarray]]:
    """The requests as mappings, without omitted inputs."""
    return [
        {
            tensor.name: array[0].decode() if tensor.dtype == "BYTES" else array
            for tensor, array in zip(inputs.model.inputs, each, strict=True)
            if array is not None
        }
        for each in inputs.requests
    ]
