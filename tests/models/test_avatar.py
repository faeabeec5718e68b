"""The model `avatar`: whole jobs over gRPC, on a live server."""

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
from tests.support.triton_streams import CALL_SECONDS, Responses, make_request, outputs, send_request

FACE_MISSING = "Face not detected! Ensure the video contains a face in all the frames."
ATTEMPTS = 10  # to let requests arrive at the same moment
PATIENCE = httpx.Timeout(CALL_SECONDS)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.9)).read_bytes()


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    return (samples / "face.png").read_bytes()


@pytest.fixture(scope="module")
def small_face(samples: Path) -> bytes:
    """The face of the samples at half of its width and height."""
    return cv2.imencode(".png", cv2.imread(str(samples / "face.png"))[::2, ::2])[1].tobytes()


@pytest.fixture(scope="module")
def clip(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short video: the face, which moves to the right."""
    image = cv2.imread(str(samples / "face.png"))[::2, ::2]
    moved = np.stack([np.roll(image, 2 * n, axis=1) for n in range(12)])
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
    ids=["a still", "a still with options", "a transparent background", "a video"],
)
def test_the_video_equals_that_of_the_gateway_frame_by_frame(
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
    response = post(gateway, files, **options)
    assert response.status_code == 200, response.text
    responses = send_request(served.stub, make_request("avatar", **files, **options))
    assert responses.error == ""
    suffix = "webm" if options.get("background") == "Transparent" else "mp4"
    ours, theirs = (
        frames(data, tmp_path, f"{n}.{suffix}") for n, data in enumerate((responses.video, response.content))
    )
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs)
    streamed, whole = (read_sound(tmp_path / f"{n}.{suffix}") for n in range(2))
    np.testing.assert_array_equal(streamed[: len(whole)], whole)  # the silence of a stream's last packet cannot be cut
    assert len(streamed) - len(whole) < 1024
    assert responses.summary
    assert responses.summary["container"] == suffix
    assert responses.summary["frames"] == int(response.headers["X-Avatar-Frames"]) == len(ours)
    assert responses.summary["without_face"] == int(response.headers["X-Avatar-Frames-Without-Face"])
    assert ", ".join(responses.summary["stand_ins"]) == response.headers["X-Avatar-Stand-Ins"]
    assert responses.summary["encoder"] == response.headers["X-Avatar-Encoder"]


def test_progress_increases_to_the_total_and_the_summary_comes_last(served: Served, face: bytes, speech: bytes) -> None:
    responses = Responses()
    kinds = []
    for response in served.stub.ModelStreamInfer(
        iter([make_request("avatar", "mine", face_file=face, audio_file=speech)])
    ):
        assert response.infer_response.id == "mine"
        responses.add(response)
        kinds.append(next(iter(outputs(response))))
    assert kinds[-1] == "summary"
    assert kinds.count("summary") == 1
    encoded = [(done, total) for stage, done, total in responses.progress if stage == "encode"]
    assert encoded == sorted(encoded)
    assert encoded[0] == (1, 23)
    assert encoded[-1] == (23, 23)
    assert responses.progress[0] == ("speech", 23, 23)
    assert responses.summary
    assert responses.summary["fps"] == "25"
    assert responses.summary["duration"] == pytest.approx(0.9)
    assert {"speech", "generation", "encode"} <= responses.summary["seconds"].keys()
    assert served.leftovers() == []
    assert served.ffmpegs() == []


BAD: dict[str, tuple[dict[str, str | bytes], dict[str, str]]] = {
    "a face file that is not an image": ({"face_file": b"not an image"}, {}),
    "an empty face file": ({"face_file": b""}, {}),
    "an audio file that is not audio": ({"audio_file": b"not audio"}, {}),
    "an image as the audio file": ({"audio_file": "face"}, {}),
    "an invalid option": ({}, {"pads": "1,2,3"}),
    "an unknown background": ({}, {"background": "Purple"}),
    "an image without a face": ({"face_file": "blank"}, {}),
    "a box outside the image": ({}, {"box": "0,9000,0,9000"}),
    "an option that is too long": ({}, {"pads": "9" * 2000}),
    "a background file that is not an image": ({"background_file": b"garbage"}, {}),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_input_gets_the_same_message_as_over_http(
    served: Served, gateway: Gateway, face: bytes, speech: bytes, name: str, tmp_path: Path
) -> None:
    changed, fields = BAD[name]
    blank = write_still(tmp_path / "blank.png").read_bytes() if "blank" in changed.values() else b""
    known = {"face": face, "blank": _without_face(blank)}
    files = {"face_file": face, "audio_file": speech} | {
        key: known[value] if isinstance(value, str) else value for key, value in changed.items()
    }
    response = post(gateway, files, **fields)
    assert response.status_code == 400
    request = make_request("avatar", **files, **fields)
    responses = send_request(served.stub, request)
    assert responses.error == f"400 {response.json()['detail']}"
    assert responses.summary is None
    # a caller that asks Triton for gRPC statuses gets one
    with pytest.raises(grpc.RpcError) as rejected:
        list(served.stub.ModelStreamInfer(iter([request]), metadata=(("triton_grpc_error", "true"),)))
    assert rejected.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.leftovers() == []


def _without_face(image: bytes) -> bytes:
    """Return a gray image of the same size; no bytes for no bytes."""
    if not image:
        return b""
    gray = np.full_like(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR), 128)
    return cv2.imencode(".png", gray)[1].tobytes()


def test_a_missing_face_gets_the_message_of_the_original_service(served: Served, speech: bytes, tmp_path: Path) -> None:
    blank = _without_face(write_still(tmp_path / "blank.png").read_bytes())
    assert (
        send_request(served.stub, make_request("avatar", face_file=blank, audio_file=speech)).error
        == f"400 {FACE_MISSING}"
    )


def test_cancelling_a_stream_stops_its_job(served: Served, face: bytes, tmp_path: Path) -> None:
    """The limit is in generated frames, of which the whole speech has 1000; docs/grpc/render.md has the time."""
    speech = write_wav(tmp_path / "long.wav", tone(40.0)).read_bytes()
    request = make_request("avatar", "to be cancelled", face_file=face, audio_file=speech)
    with caller(served.triton.grpc_address) as call:
        before = call.windows("wav2lip")
        stream = served.stub.ModelStreamInfer(iter([request]))
        for response in stream:
            if outputs(response).get("stage") == "encode":
                break
        stream.cancel()
        assert served.ffmpegs() == []
        assert served.leftovers() == []
        last = call.windows("wav2lip")
        assert 0 < last - before < 500
        time.sleep(1)
        assert call.windows("wav2lip") == last


def test_eight_concurrent_streams_do_not_affect_each_other(
    served: Served, small_face: bytes, speech: bytes, tmp_path: Path
) -> None:
    alone = frames(
        send_request(served.stub, make_request("avatar", face_file=small_face, audio_file=speech)).video,
        tmp_path,
        "alone.mp4",
    )
    results: dict[int, Responses] = {}

    def valid(number: int) -> None:
        results[number] = send_request(
            served.stub, make_request("avatar", f"{number}", face_file=small_face, audio_file=speech)
        )

    def invalid(number: int) -> None:
        results[number] = send_request(
            served.stub, make_request("avatar", face_file=b"\x89PNG\r\n\x1a\ninvalid", audio_file=speech)
        )

    def cancelled(number: int) -> None:
        stream = served.stub.ModelStreamInfer(iter([make_request("avatar", face_file=small_face, audio_file=speech)]))
        next(stream)
        stream.cancel()

    work = [valid] * 3 + [invalid, cancelled] + [valid] * 3
    threads = [threading.Thread(target=each, args=(number,)) for number, each in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[3].error.startswith("400 face_file: ")
    rest = [responses for number, responses in results.items() if number != 3]
    assert len(rest) == 6
    assert any(responses.progress[0] == ("queue", 0, -1) for responses in rest)  # four run at once
    for number, responses in enumerate(rest):
        assert responses.error == ""
        # a batch of another size may round differently, and H.264 spreads the difference
        video = frames(responses.video, tmp_path, f"{number}.mp4")
        assert video.shape == alone.shape
        assert np.abs(video.astype(np.int16) - alone).mean() < 0.1
    assert served.leftovers() == []
    assert served.ffmpegs() == []


def test_concurrent_jobs_share_batches_of_the_generator(served: Served, small_face: bytes, speech: bytes) -> None:
    def largest_batch() -> int:
        before = call.batches("wav2lip")
        requests = [make_request("avatar", face_file=small_face, audio_file=speech) for _ in range(4)]
        threads = [threading.Thread(target=send_request, args=(served.stub, request)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runs = {size: count - before.get(size, 0) for size, count in call.batches("wav2lip").items()}
        assert sum(size * count for size, count in runs.items()) == 4 * 23
        return max(size for size, count in runs.items() if count)

    with caller(served.triton.grpc_address) as call:
        # a single job has batches of MIN_WINDOWS on a slow machine; on a busy one, four may run one after the other
        assert any(largest_batch() > MIN_WINDOWS for _ in range(ATTEMPTS))


def test_every_option_of_the_form_is_an_input(served: Served, face: bytes, speech: bytes) -> None:
    chosen = {option.name: option.default_text for option in OPTION_FIELDS}
    responses = send_request(served.stub, make_request("avatar", face_file=face, audio_file=speech, **chosen))
    assert responses.error == ""
    assert responses.summary
