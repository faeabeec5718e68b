"""Every kind of wrong input results in an error of one line, and the server keeps running."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import grpc
import httpx
import numpy as np
import pytest

from tests.support.live_streams import (
    FRAMES_OF_SESSION,
    SECONDS,
    SPEECH,
    live_request,
    run_session,
)
from tests.support.media import write_video
from tests.support.triton_server import Served
from tests.support.triton_streams import make_request, send_request

FACE_MISSING = "400 Face not detected! Ensure the video contains a face in all the frames."


def _text(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


TENSORS: dict[str, tuple[str, str, list[int], bytes]] = {
    "no text": ("pads", "BYTES", [0], b""),
    "two texts": ("pads", "BYTES", [2], _text(b"0,0,0,0", b"0,0,0,0")),
    "a text in two dimensions": ("pads", "BYTES", [1, 1], _text(b"0,0,0,0")),
    "a text that claims to be longer": ("pads", "BYTES", [1], b"\xff\xff\xff\xffabc"),
    "a text cut short": ("pads", "BYTES", [1], b"\x07"),
    "a text that is not UTF-8": ("pads", "BYTES", [1], _text(b"\xff\xfe\x00")),
    "a text of another type": ("pads", "UINT8", [1], b"1"),
    "a face of another type": ("face_file", "FP32", [1], b"face"),
    "a face in two dimensions": ("face_file", "UINT8", [1, 4], b"face"),
    "a face that claims to be larger": ("face_file", "UINT8", [2**40], b"face"),
    "a face of a negative size": ("face_file", "UINT8", [-4], b"face"),
    "a face without bytes": ("face_file", "UINT8", [0], b""),
    "an unknown input": ("nothing", "UINT8", [1], b"1"),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("model", ["avatar", "live"])
def test_a_tensor_of_a_wrong_kind_is_an_error_of_one_line_without_paths(
    served: Served, face: bytes, recording: bytes, sequence: int, model: str, name: str
) -> None:
    tensor, datatype, shape, data = TENSORS[name]
    files = {} if tensor == "face_file" else {"face_file": face}
    if model == "avatar":
        request = make_request("avatar", "bad", audio_file=recording, **files)
    else:
        request = live_request(sequence, "bad", start=True, end=True, **files)
    request.inputs.add(name=tensor, datatype=datatype, shape=shape)
    request.raw_input_contents.append(data)
    error = send_request(served.stub, request).error
    assert error
    _assert_no_internals(error)


def _assert_no_internals(error: str) -> None:
    assert "Traceback" not in error
    assert ".py" not in error
    assert str(Path(__file__).parents[3]) not in error


@pytest.mark.parametrize("identity", [-1, "ü/../ü", "x" * 128], ids=["negative", "text", "long"])
def test_a_session_may_have_any_id(served: Served, face: bytes, identity: int | str) -> None:
    assert run_session(served, face, identity).summary


@pytest.mark.parametrize("identity", [0, "", "x" * 129], ids=["zero", "empty", "too long"])
def test_a_session_needs_a_valid_id(served: Served, face: bytes, identity: int | str) -> None:
    assert "correlation ID" in run_session(served, face, identity).error


def test_the_error_of_a_request_id_that_is_not_utf8_shows_no_path_of_the_server(served: Served) -> None:
    """Such an id can arrive by HTTP, not by gRPC."""
    request = json.dumps({"face_file": [1], "audio_file": [1], "id": "ID"}).encode().replace(b'"ID"', b'"\xff\xfe"')
    url = f"http://{served.triton.http_address}/v2/models/avatar/generate_stream"
    response = httpx.post(url, content=request, trust_env=False, timeout=SECONDS)
    assert "400 audio_file: not an audio file that can be read" in response.text
    _assert_no_internals(response.text)


def test_calls_by_a_method_without_streaming_are_rejected(served: Served, face: bytes, recording: bytes) -> None:
    with pytest.raises(grpc.RpcError) as rejected:
        served.stub.ModelInfer(make_request("avatar", face_file=face, audio_file=recording))
    assert rejected.value.code() is grpc.StatusCode.UNIMPLEMENTED
    url = f"http://{served.triton.http_address}/v2/models"
    files = {"face_file": list(face), "audio_file": list(recording)}
    inputs = [{"name": k, "datatype": "UINT8", "shape": [len(v)], "data": v} for k, v in files.items()]
    infer = httpx.post(f"{url}/avatar/infer", json={"inputs": inputs}, trust_env=False, timeout=SECONDS)
    assert infer.status_code == 501
    once = httpx.post(f"{url}/avatar/generate", json=files, trust_env=False, timeout=SECONDS)
    assert "exactly 1 response" in once.text
    first = {"face_file": files["face_file"]}
    session = httpx.post(f"{url}/live/generate_stream", json=first, trust_env=False, timeout=SECONDS)
    assert "correlation ID" in session.text


def test_only_the_requested_outputs_are_sent(served: Served, face: bytes, recording: bytes, sequence: int) -> None:
    request = make_request("avatar", face_file=face, audio_file=recording)
    request.outputs.add(name="summary")
    responses = send_request(served.stub, request)
    assert responses.summary
    assert (responses.chunks, responses.progress) == ([], [])
    request = live_request(sequence, "all", start=True, end=True, face_file=face, audio=SPEECH)
    request.outputs.add(name="index")
    responses = send_request(served.stub, request)
    assert [list(frame) for frame in responses.frames.values()] == [["index"]] * FRAMES_OF_SESSION
    request.outputs.add(name="nothing")
    assert "unexpected inference output 'nothing'" in send_request(served.stub, request).error


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38], ids=str)
def test_audio_of_nan_infinite_or_huge_samples_is_accepted(
    served: Served, face: bytes, sequence: int, value: float
) -> None:
    noise = (value * np.random.default_rng(0).choice([-1, 1], 6400)).astype(np.float32)
    responses = send_request(
        served.stub, live_request(sequence, "all", start=True, end=True, face_file=face, audio=noise)
    )
    assert responses.error == ""
    assert responses.summary


@pytest.mark.parametrize("size", [(1, 1), (5000, 1)], ids=str)
def test_an_image_too_small_for_a_face_has_no_face(
    served: Served, recording: bytes, sequence: int, size: tuple[int, int]
) -> None:
    image = cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1].tobytes()
    assert (
        send_request(served.stub, make_request("avatar", face_file=image, audio_file=recording)).error == FACE_MISSING
    )
    for frame_format in ("mouth", "bgr"):
        responses = run_session(served, image, sequence, no_face="keep", format=frame_format)
        assert responses.summary
        assert responses.summary["without_face"] == responses.summary["frames"] == FRAMES_OF_SESSION


def test_a_video_too_small_for_a_face_has_no_face(served: Served, recording: bytes, tmp_path: Path) -> None:
    video = write_video(tmp_path / "tiny.mp4", np.zeros((3, 2, 2, 3), np.uint8)).read_bytes()
    request = make_request("avatar", face_file=video, audio_file=recording, avatarFileType="mp4")
    assert send_request(served.stub, request).error == FACE_MISSING
