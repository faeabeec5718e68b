"""Inputs of every wrong kind: an error of one line, and the server lives on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import grpc
import httpx
import numpy as np
import pytest

from tests.support.live_streams import (
    SECONDS,
    SPEECH,
    WHOLE,
    live,
    spoken,
)
from tests.support.media import write_video
from tests.support.triton_server import Served
from tests.support.triton_streams import ask, request

FACE_MISSING = "400 Face not detected! Ensure the video contains a face in all the frames."


def _text(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


TENSORS: dict[str, tuple[str, str, list[int], bytes]] = {
    "no text": ("pads", "BYTES", [0], b""),
    "two texts": ("pads", "BYTES", [2], _text(b"0,0,0,0", b"0,0,0,0")),
    "a text in two dimensions": ("pads", "BYTES", [1, 1], _text(b"0,0,0,0")),
    "a text that claims to be longer": ("pads", "BYTES", [1], b"\xff\xff\xff\xffabc"),
    "a text cut short": ("pads", "BYTES", [1], b"\x07"),
    "a text that is none": ("pads", "BYTES", [1], _text(b"\xff\xfe\x00")),
    "a text of another type": ("pads", "UINT8", [1], b"1"),
    "a face of another type": ("face_file", "FP32", [1], b"face"),
    "a face in two dimensions": ("face_file", "UINT8", [1, 4], b"face"),
    "a face that claims to be larger": ("face_file", "UINT8", [2**40], b"face"),
    "a face of a negative size": ("face_file", "UINT8", [-4], b"face"),
    "a face of nothing": ("face_file", "UINT8", [0], b""),
    "an input that there is not": ("nothing", "UINT8", [1], b"1"),
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("model", ["avatar", "live"])
def test_a_tensor_of_a_wrong_kind_is_an_error_of_one_line_without_paths(
    served: Served, face: bytes, recording: bytes, sequence: int, model: str, name: str
) -> None:
    tensor, datatype, shape, data = TENSORS[name]
    files = {} if tensor == "face_file" else {"face_file": face}
    if model == "avatar":
        asked = request("avatar", "bad", audio_file=recording, **files)
    else:
        asked = live(sequence, "bad", start=True, end=True, **files)
    asked.inputs.add(name=tensor, datatype=datatype, shape=shape)
    asked.raw_input_contents.append(data)
    error = ask(served.stub, asked).error
    assert error
    _assert_tells_nothing(error)


def _assert_tells_nothing(error: str) -> None:
    assert "Traceback" not in error
    assert ".py" not in error
    assert str(Path(__file__).parents[3]) not in error


@pytest.mark.parametrize("identity", [-1, "ü/../ü", "x" * 128], ids=["negative", "a text", "long"])
def test_a_session_may_have_any_id(served: Served, face: bytes, identity: int | str) -> None:
    assert spoken(served, face, identity).summary


@pytest.mark.parametrize("identity", [0, "", "x" * 129], ids=["zero", "empty", "too long"])
def test_a_session_has_to_have_an_id(served: Served, face: bytes, identity: int | str) -> None:
    assert "correlation ID" in spoken(served, face, identity).error


def test_an_id_that_is_no_text_shows_no_path_of_this_machine(served: Served) -> None:
    """HTTP lets it through, gRPC does not."""
    asked = json.dumps({"face_file": [1], "audio_file": [1], "id": "ID"}).encode().replace(b'"ID"', b'"\xff\xfe"')
    url = f"http://{served.triton.http_address}/v2/models/avatar/generate_stream"
    answer = httpx.post(url, content=asked, trust_env=False)
    assert "400 audio_file: not an audio file that can be read" in answer.text
    _assert_tells_nothing(answer.text)


def test_calls_of_the_wrong_kind_are_refused(served: Served, face: bytes, recording: bytes) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        served.stub.ModelInfer(request("avatar", face_file=face, audio_file=recording))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    url = f"http://{served.triton.http_address}/v2/models"
    files = {"face_file": list(face), "audio_file": list(recording)}
    inputs = [{"name": k, "datatype": "UINT8", "shape": [len(v)], "data": v} for k, v in files.items()]
    assert httpx.post(f"{url}/avatar/infer", json={"inputs": inputs}, trust_env=False).status_code == 501
    once = httpx.post(f"{url}/avatar/generate", json=files, trust_env=False, timeout=SECONDS)
    assert "exactly 1 response" in once.text
    session = httpx.post(f"{url}/live/generate_stream", json={"face_file": files["face_file"]}, trust_env=False)
    assert "correlation ID" in session.text


def test_who_asks_for_one_output_gets_one(served: Served, face: bytes, recording: bytes, sequence: int) -> None:
    asked = request("avatar", face_file=face, audio_file=recording)
    asked.outputs.add(name="summary")
    answers = ask(served.stub, asked)
    assert answers.summary
    assert (answers.chunks, answers.progress) == ([], [])
    asked = live(sequence, "all", start=True, end=True, face_file=face, audio=SPEECH)
    asked.outputs.add(name="index")
    answers = ask(served.stub, asked)
    assert [list(frame) for frame in answers.frames.values()] == [["index"]] * WHOLE
    asked.outputs.add(name="nothing")
    assert "unexpected inference output 'nothing'" in ask(served.stub, asked).error


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.4e38], ids=str)
def test_numbers_that_are_no_sound_are_heard_as_something(
    served: Served, face: bytes, sequence: int, value: float
) -> None:
    noise = (value * np.random.default_rng(0).choice([-1, 1], 6400)).astype(np.float32)
    answers = ask(served.stub, live(sequence, "all", start=True, end=True, face_file=face, audio=noise))
    assert answers.error == ""
    assert answers.summary


@pytest.mark.parametrize("size", [(1, 1), (5000, 1)], ids=str)
def test_a_picture_too_narrow_for_a_face_shows_none(
    served: Served, recording: bytes, sequence: int, size: tuple[int, int]
) -> None:
    picture = cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1].tobytes()
    assert ask(served.stub, request("avatar", face_file=picture, audio_file=recording)).error == FACE_MISSING
    for form in ("mouth", "bgr"):
        made = spoken(served, picture, sequence, no_face="keep", format=form)
        assert made.summary
        assert made.summary["without_face"] == made.summary["frames"] == WHOLE


def test_a_video_too_narrow_for_a_face_shows_none(served: Served, recording: bytes, tmp_path: Path) -> None:
    video = write_video(tmp_path / "tiny.mp4", np.zeros((3, 2, 2, 3), np.uint8)).read_bytes()
    asked = request("avatar", face_file=video, audio_file=recording, avatarFileType="mp4")
    assert ask(served.stub, asked).error == FACE_MISSING
