"""The model `avatar`: the whole job over gRPC, on a live server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import grpc
import httpx
import numpy as np
import pytest

from avatar.form.fields import OPTION_FIELDS
from avatar.inference.bls_client import MIN_WINDOWS
from tests.support.gateway_process import Gateway
from tests.support.media import read_sound, read_video, tone, write_still, write_video, write_wav
from tests.support.triton_calls import caller
from tests.support.triton_server import Served
from tests.support.triton_streams import CALL_SECONDS, Responses, ask, outputs, request

FACE_MISSING = "Face not detected! Ensure the video contains a face in all the frames."
PATIENCE = httpx.Timeout(CALL_SECONDS)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.9)).read_bytes()


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    return (samples / "face.png").read_bytes()


@pytest.fixture(scope="module")
def clip(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short video: the face, which moves to the right."""
    picture = cv2.imread(str(samples / "face.png"))[::2, ::2]
    moved = np.stack([np.roll(picture, 2 * n, axis=1) for n in range(12)])
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moved).read_bytes()


def post(gateway: Gateway, files: dict[str, bytes], **fields: str) -> httpx.Response:
    form = {"avatarFileType": "png", "background": "From Input"} | fields
    return httpx.post(f"{gateway.url}/", data=form, files=files, timeout=PATIENCE, trust_env=False)


def frames(data: bytes, folder: Path, name: str) -> np.ndarray:
    path = folder / name
    path.write_bytes(data)
    return read_video(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("still", {}),
        ("still", {"background": "Green", "blend": "feather", "max_height": "240", "model": "wav2lip_gan"}),
        ("still", {"background": "Transparent", "max_height": "240"}),
        ("video", {"avatarFileType": "mp4", "length": "bounce", "quality": "draft"}),
    ],
    ids=["a still", "a still with options", "before nothing", "a video"],
)
def test_the_video_is_the_gateways_frame_for_frame(
    served: Served,
    gateway: Gateway,
    face: bytes,
    clip: bytes,
    speech: bytes,
    kind: str,
    options: dict[str, str],
    tmp_path: Path,
) -> None:
    files = {"face_file": face if kind == "still" else clip, "audio_file": speech}
    answer = post(gateway, files, **options)
    assert answer.status_code == 200, answer.text
    answers = ask(served.stub, request("avatar", **files, **options))
    assert answers.error == ""
    suffix = "webm" if options.get("background") == "Transparent" else "mp4"
    ours, theirs = (frames(data, tmp_path, f"{n}.{suffix}") for n, data in enumerate((answers.video, answer.content)))
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs)
    heard, whole = (read_sound(tmp_path / f"{n}.{suffix}") for n in range(2))
    np.testing.assert_array_equal(heard[: len(whole)], whole)  # a stream cannot take back its last packet's silence
    assert len(heard) - len(whole) < 1024
    assert answers.summary
    assert answers.summary["container"] == suffix
    assert answers.summary["frames"] == int(answer.headers["X-Avatar-Frames"]) == len(ours)
    assert answers.summary["without_face"] == int(answer.headers["X-Avatar-Frames-Without-Face"])
    assert ", ".join(answers.summary["stand_ins"]) == answer.headers["X-Avatar-Stand-Ins"]


def test_progress_goes_forward_to_the_whole_and_the_summary_comes_last(
    served: Served, face: bytes, speech: bytes
) -> None:
    answers = Responses()
    kinds = []
    for answer in served.stub.ModelStreamInfer(iter([request("avatar", "mine", face_file=face, audio_file=speech)])):
        assert answer.infer_response.id == "mine"
        answers.add(answer)
        kinds.append(next(iter(outputs(answer))))
    assert kinds[-1] == "summary"
    assert kinds.count("summary") == 1
    encoded = [(done, total) for stage, done, total in answers.progress if stage == "encode"]
    assert encoded == sorted(encoded)
    assert encoded[0] == (1, 23)
    assert encoded[-1] == (23, 23)
    assert answers.progress[0] == ("speech", 23, 23)
    assert answers.summary
    assert answers.summary["fps"] == "25"
    assert answers.summary["duration"] == pytest.approx(0.9)
    assert {"speech", "generation", "encode"} <= answers.summary["seconds"].keys()
    assert served.leftovers() == []
    assert served.ffmpegs() == []


BAD: dict[str, tuple[dict[str, str | bytes], dict[str, str]]] = {
    "garbage for a face": ({"face_file": b"no picture at all"}, {}),
    "an empty face": ({"face_file": b""}, {}),
    "garbage for a speech": ({"audio_file": b"no sound at all"}, {}),
    "a picture for a speech": ({"audio_file": "face"}, {}),
    "an option of another value": ({}, {"pads": "1,2,3"}),
    "a background that is none": ({}, {"background": "Purple"}),
    "a face that is not there": ({"face_file": "blank"}, {}),
    "a box outside": ({}, {"box": "0,9000,0,9000"}),
    "a text without end": ({}, {"pads": "9" * 2000}),
    "a picture behind that is none": ({"background_file": b"garbage"}, {}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_over_http_is_refused_with_the_same_sentence(
    served: Served, gateway: Gateway, face: bytes, speech: bytes, name: str, tmp_path: Path
) -> None:
    given, fields = BAD[name]
    blank = write_still(tmp_path / "blank.png").read_bytes() if "blank" in given.values() else b""
    known = {"face": face, "blank": _without_face(blank)}
    files = {"face_file": face, "audio_file": speech} | {
        key: known[value] if isinstance(value, str) else value for key, value in given.items()
    }
    answer = post(gateway, files, **fields)
    assert answer.status_code == 400
    asked = request("avatar", **files, **fields)
    answers = ask(served.stub, asked)
    assert answers.error == f"400 {answer.json()['detail']}"
    assert answers.summary is None
    # whoever asks Triton for gRPC's own codes gets one, and the server lives on
    with pytest.raises(grpc.RpcError) as refused:
        list(served.stub.ModelStreamInfer(iter([asked]), metadata=(("triton_grpc_error", "true"),)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.leftovers() == []


def _without_face(picture: bytes) -> bytes:
    """The same size in grey, or nothing of nothing."""
    if not picture:
        return b""
    grey = np.full_like(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), 128)
    return cv2.imencode(".png", grey)[1].tobytes()


def test_a_frame_without_a_face_is_told_in_the_originals_words(served: Served, speech: bytes, tmp_path: Path) -> None:
    blank = _without_face(write_still(tmp_path / "blank.png").read_bytes())
    assert ask(served.stub, request("avatar", face_file=blank, audio_file=speech)).error == f"400 {FACE_MISSING}"


def test_a_cancelled_streams_work_stops(served: Served, face: bytes, samples: Path) -> None:
    """How soon is for docs/grpc/render.md; here it is counted in frames, of which the speech has 178."""
    asked = request("avatar", "to be cancelled", face_file=face, audio_file=(samples / "speech.wav").read_bytes())
    stream = served.stub.ModelStreamInfer(iter([asked]))
    for answer in stream:
        if outputs(answer).get("stage") == "encode":
            break
    with caller(served.triton.grpc_address) as call:
        begun = call.windows("wav2lip")
        stream.cancel()
        assert served.ffmpegs() == []
        assert served.leftovers() == []
        assert call.windows("wav2lip") - begun < 60
        last = call.windows("wav2lip")
        time.sleep(1)
        assert call.windows("wav2lip") == last


def test_eight_streams_at_once_do_not_touch_each_other(
    served: Served, face: bytes, speech: bytes, tmp_path: Path
) -> None:
    alone = frames(ask(served.stub, request("avatar", face_file=face, audio_file=speech)).video, tmp_path, "alone.mp4")
    answered: dict[int, Responses] = {}

    def right(number: int) -> None:
        answered[number] = ask(served.stub, request("avatar", f"{number}", face_file=face, audio_file=speech))

    def rubbish(number: int) -> None:
        answered[number] = ask(served.stub, request("avatar", face_file=b"\x89PNG\r\n\x1a\nrubbish", audio_file=speech))

    def cancelled(number: int) -> None:
        stream = served.stub.ModelStreamInfer(iter([request("avatar", face_file=face, audio_file=speech)]))
        next(stream)
        stream.cancel()

    work = [right] * 3 + [rubbish, cancelled] + [right] * 3
    threads = [threading.Thread(target=each, args=(number,)) for number, each in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered[3].error.startswith("400 face_file: ")
    rest = [answers for number, answers in answered.items() if number != 3]
    assert len(rest) == 6
    assert any(answers.progress[0] == ("queue", 0, -1) for answers in rest)  # more than work at once are in line
    for number, answers in enumerate(rest):
        assert answers.error == ""
        # in other company a batch of the net may round the other way, and H.264 tells it on
        made = frames(answers.video, tmp_path, f"{number}.mp4")
        assert made.shape == alone.shape
        assert np.abs(made.astype(int) - alone).mean() < 0.1
    assert served.leftovers() == []
    assert served.ffmpegs() == []


def test_callers_share_the_batches_of_the_net(served: Served, face: bytes, speech: bytes) -> None:
    with caller(served.triton.grpc_address) as call:
        before = call.batches("wav2lip")
        asked = [request("avatar", face_file=face, audio_file=speech) for _ in range(4)]
        threads = [threading.Thread(target=ask, args=(served.stub, each)) for each in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runs = {size: count - before.get(size, 0) for size, count in call.batches("wav2lip").items()}
    frames_made = sum(size * count for size, count in runs.items())
    assert frames_made == 4 * 23
    assert max(size for size, count in runs.items() if count) > MIN_WINDOWS  # what one call has on a slow machine


def test_every_option_of_the_form_is_an_input(served: Served, face: bytes, speech: bytes) -> None:
    chosen = {option.name: option.default_text for option in OPTION_FIELDS}
    answers = ask(served.stub, request("avatar", face_file=face, audio_file=speech, **chosen))
    assert answers.error == ""
    assert answers.summary
