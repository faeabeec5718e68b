"""Callers who do what nobody should: the streaming models answer every request, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import cv2
import grpc
import httpx
import numpy as np
import psutil
import pytest
import soundfile
from tritonclient.grpc import service_pb2 as pb

from avatar.resources.workspace import Workspace
from avatar.serving.live_session import NO_SESSION
from avatar.settings import LiveSettings
from lipsync.mel_stream import MelStream
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from tests.support.media import tone, write_video, write_wav
from tests.support.triton_server import Served
from tests.support.triton_streams import Answers, ask, is_last, request

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
SPEECH, _ = soundfile.read(SAMPLES / "speech.wav", dtype="float32", start=16_000, frames=4800)  # 0.3 s
LONG = np.resize(SPEECH, 160_000)  # 10 s, so that it is under way for a while on any machine
SECONDS = 60.0  # for a stream that ends; one that hangs fails then
GONE = f"400 {NO_SESSION}"
FACE_MISSING = "400 Face not detected! Ensure the video contains a face in all the frames."
NOTHING = np.zeros(0, np.int16)
_HEARD = MelStream(25.0)
SPOKEN = len(_HEARD.feed(SPEECH))  # frames that it completes
WHOLE = SPOKEN + len(_HEARD.flush())  # and those that follow when it is over
_sequences = count(500_000)


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    """The face of the samples, at a quarter of its pixels."""
    picture = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", picture)[1].tobytes()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.4)).read_bytes()


@pytest.fixture
def sequence() -> int:
    return next(_sequences)


@pytest.fixture(autouse=True)
def _lives_on(served: Served) -> Iterator[None]:
    """Whatever was sent, the server and all of its models are there, and nothing lies about."""
    before = _stubs(served)
    yield
    assert _stubs(served) == before
    assert served.ffmpegs() == []
    assert served.leftovers() == []


class Stream:
    """A stream by hand. Answers are read as they come, and belong to their request's id."""

    def __init__(self, served: Served, seconds: float = SECONDS) -> None:
        self.answers: defaultdict[str, Answers] = defaultdict(Answers)
        self.over: list[str] = []  # ids in the order of their last answers
        self.code: grpc.StatusCode | None = None
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self._stream = served.stub.ModelStreamInfer(iter(self._requests.get, None), timeout=seconds)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, *asked: pb.ModelInferRequest) -> None:
        for each in asked:
            self._requests.put(each)

    def until(self, ready: Callable[[], bool], seconds: float = SECONDS) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, (self.over, self.code)
            time.sleep(0.02)

    def until_over(self, *identities: str) -> None:
        self.until(lambda: set(identities) <= set(self.over))

    def end(self) -> None:
        """Close our side, and wait for the server's."""
        self._requests.put(None)
        self._reader.join(SECONDS)
        assert not self._reader.is_alive()
        assert self.code is None, "it ended by itself"

    def cancel(self) -> None:
        self._stream.cancel()
        self._requests.put(None)
        self._reader.join(SECONDS)

    def _read(self) -> None:
        try:
            for answer in self._stream:
                identity = answer.infer_response.id
                self.answers[identity].add(answer)
                if is_last(answer) or answer.error_message:
                    self.over.append(identity)
        except grpc.RpcError as error:
            self.code = error.code()


def live(
    sequence: int | str,
    name: str,
    *,
    start: bool = False,
    end: bool = False,
    **inputs: bytes | str | np.ndarray,
) -> pb.ModelInferRequest:
    made = request("live", name, **inputs)
    if isinstance(sequence, str):
        made.parameters["sequence_id"].string_param = sequence
    else:
        made.parameters["sequence_id"].int64_param = sequence
    made.parameters["sequence_start"].bool_param = start
    made.parameters["sequence_end"].bool_param = end
    made.parameters["triton_enable_empty_final_response"].bool_param = True
    return made


def spoken(served: Served, face: bytes, sequence: int | str, **options: str) -> Answers:
    """A whole session in one request."""
    return ask(served.stub, live(sequence, "all", start=True, end=True, face_file=face, audio=SPEECH, **options))


def finish(served: Served, sequence: int) -> Answers:
    """End a session, so that its place is free for the next test."""
    return ask(served.stub, live(sequence, "end", end=True, pcm=NOTHING))


def _stubs(served: Served) -> set[int]:
    children = psutil.Process(served.triton.pid).children(recursive=True)
    return {child.pid for child in children if "python_b" in child.name()}


def _mib(served: Served, model: str) -> int:
    """What a model's process has for itself, shared memory not counted."""
    for pid in _stubs(served):
        process = psutil.Process(pid)
        if f"/{model}/1/" in process.cmdline()[1]:
            return int(process.memory_full_info().uss) >> 20
    raise LookupError(model)


# --- sessions that are taken from under their requests


def test_a_second_start_ends_the_first_session_and_each_of_its_requests(
    served: Served, face: bytes, sequence: int
) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face))
    stream.until_over("first")
    stream.send(live(sequence, "under way", audio=LONG), live(sequence, "in line", audio=SPEECH))
    stream.until(lambda: bool(stream.answers["under way"].frames))
    stream.send(live(sequence, "second", start=True, face_file=face), live(sequence, "last", end=True, audio=SPEECH))
    stream.end()
    assert stream.answers["under way"].error == stream.answers["in line"].error == GONE
    assert stream.answers["second"].session
    assert stream.answers["last"].summary
    assert stream.answers["last"].summary["duration"] == pytest.approx(0.3)


def test_a_second_start_ends_the_preparation_of_the_first(served: Served, sequence: int, samples: Path) -> None:
    whole = (samples / "face.png").read_bytes()
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=whole, background="#102030"))  # takes a segmentation
    time.sleep(0.2)
    stream.send(live(sequence, "second", start=True, end=True, face_file=whole))
    stream.end()
    assert stream.answers["first"].error == GONE
    assert stream.answers["first"].session is None
    assert stream.answers["second"].summary


def test_a_cancelled_stream_ends_its_session_for_the_other_streams_of_it(
    served: Served, face: bytes, sequence: int
) -> None:
    ours, theirs = Stream(served), Stream(served)
    ours.send(live(sequence, "begin", start=True, face_file=face))
    ours.until_over("begin")
    ours.send(live(sequence, "ours", audio=LONG))
    ours.until(lambda: bool(ours.answers["ours"].frames))
    theirs.send(live(sequence, "theirs", audio=LONG))
    time.sleep(0.2)
    theirs.cancel()
    ours.end()
    assert ours.answers["ours"].error == GONE


def test_a_first_request_that_does_not_do_ends_the_session_of_before(
    served: Served, face: bytes, sequence: int
) -> None:
    """Or who follows with speech would get the pictures of somebody else."""
    stream = Stream(served)
    stream.send(live(sequence, "before", start=True, face_file=face))
    stream.until_over("before")
    stream.send(
        live(sequence, "bad", start=True, face_file=face, pads="9" * 2000), live(sequence, "speech", audio=SPEECH)
    )
    stream.end()
    assert stream.answers["bad"].error.startswith("400 pads: the value is longer than")
    assert stream.answers["speech"].error == GONE
    assert stream.answers["speech"].frames == {}


def test_pieces_behind_a_beginning_that_fails_are_all_answered(served: Served, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "bad", start=True, face_file=b"no picture"))
    names = [f"piece-{n}" for n in range(20)]
    stream.send(*(live(sequence, name, audio=SPEECH) for name in names), live(sequence, "last", end=True))
    stream.end()
    assert stream.answers["bad"].error.startswith("400 face_file: ")
    assert {stream.answers[name].error for name in (*names, "last")} == {GONE}


def test_a_last_request_that_does_not_do_is_an_error_and_no_summary(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face), live(sequence, "speech", audio=SPEECH))
    stream.send(live(sequence, "last", end=True, audio=SPEECH, pcm=np.zeros(640, np.int16)))
    stream.end()
    assert stream.answers["last"].error == "400 pcm: send audio or pcm, not both"
    assert stream.answers["last"].summary is None
    assert stream.answers["speech"].error == ""
    assert len(stream.answers["speech"].frames) == SPOKEN


def test_a_refused_piece_is_answered_in_its_turn(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(
        live(sequence, "first", start=True, face_file=face),
        live(sequence, "speech", audio=SPEECH),
        live(sequence, "short", audio=SPEECH[:10]),
        live(sequence, "more", audio=SPEECH),
        live(sequence, "last", end=True),
    )
    stream.end()
    assert stream.answers["short"].error.startswith("400 audio: at least 20 ms")
    assert stream.answers["last"].summary
    assert stream.answers["last"].summary["duration"] == pytest.approx(0.6)
    assert stream.over.index("short") < stream.over.index("more") < stream.over.index("last")


# --- streams in disorder


def test_our_side_may_close_before_a_session_ends(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face), live(sequence, "speech", audio=SPEECH))
    stream.end()
    assert len(stream.answers["speech"].frames) == SPOKEN
    assert finish(served, sequence).summary  # on another one


def test_sessions_and_jobs_share_one_stream(served: Served, face: bytes, recording: bytes) -> None:
    sequences = [next(_sequences) for _ in range(2)]
    stream = Stream(served)
    stream.send(request("avatar", "video", face_file=face, audio_file=recording))
    stream.send(*(live(each, f"{each} first", start=True, face_file=face) for each in sequences))
    for n in range(5):
        pieces = (live(each, f"{each} {n}", audio=SPEECH[n * 960 :][:960], end=n == 4) for each in sequences)
        stream.send(*pieces, request("avatar", f"bad {n}", face_file=b"x", audio_file=recording))
    stream.end()
    assert stream.answers["video"].summary
    assert {stream.answers[f"bad {n}"].error for n in range(5)} == {"400 face_file: not an image that can be read"}
    for each in sequences:
        summary = stream.answers[f"{each} 4"].summary
        assert summary
        assert summary["duration"] == pytest.approx(0.3)
        frames = [n for piece in range(5) for n in stream.answers[f"{each} {piece}"].frames]
        assert frames == list(range(summary["frames"]))


def test_a_flood_of_pieces_is_bounded_and_does_not_hold_up_others(served: Served, face: bytes, sequence: int) -> None:
    flood = Stream(served)
    flood.send(live(sequence, "first", start=True, face_file=face, format="mouth"))
    flood.until_over("first")
    flood.send(*(live(sequence, f"piece-{n}", audio=SPEECH[:320]) for n in range(2500)))
    flood.until(lambda: any(answers.error.startswith("503 ") for answers in list(flood.answers.values())))
    assert spoken(served, face, next(_sequences)).summary
    flood.end()
    assert len(flood.over) == 2501


def test_a_cancelled_stream_of_many_pieces_leaves_no_session(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face))
    stream.send(*(live(sequence, f"piece-{n}", audio=LONG) for n in range(10)))
    stream.until(lambda: bool(stream.answers["piece-0"].frames))
    stream.cancel()
    after = Stream(served)

    def is_gone() -> bool:
        after.send(live(sequence, "after", audio=SPEECH[:320]))
        after.until(lambda: "after" in after.over)
        after.over.clear()
        return after.answers["after"].error == GONE

    after.until(is_gone)
    after.end()


def test_a_deadline_in_the_middle_leaves_nothing(served: Served, samples: Path) -> None:
    files = {"face_file": (samples / "face.png").read_bytes(), "audio_file": (samples / "speech.wav").read_bytes()}
    stream = Stream(served, seconds=1.0)
    stream.send(request("avatar", **files))
    stream.until(lambda: stream.code is not None)
    assert stream.code is grpc.StatusCode.DEADLINE_EXCEEDED


VICTIM = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from stream_calls import outputs, request, stub

face, speech = (Path({samples!r}, name).read_bytes() for name in ("face.png", "speech.wav"))
with stub({address!r}) as server:
    for answer in server.ModelStreamInfer(iter([request("avatar", "victim", face_file=face, audio_file=speech)])):
        if outputs(answer).get("stage") == "encode":
            print("flowing", flush=True)
"""


def test_a_client_that_is_killed_leaves_nothing(served: Served, samples: Path) -> None:
    paths = [str(Path(__file__).parents[3])]
    code = VICTIM.format(paths=paths, samples=str(samples), address=served.triton.grpc_address)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout
        assert client.stdout.readline() == b"flowing\n"
        client.kill()
    end = time.monotonic() + SECONDS
    while "avatar [victim] the client disconnected" not in served.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert "avatar [victim] the client disconnected" in served.log.read_text()


# --- inputs of every wrong kind


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


# --- memory


def test_files_of_refused_calls_are_not_kept(served: Served, face: bytes, recording: bytes) -> None:
    zeros = bytes(64 << 20)
    refused = (
        {"face_file": zeros, "audio_file": recording, "pads": "9" * 2000},
        {"face_file": face, "audio_file": zeros},
        {"face_file": zeros, "audio_file": recording, "fps": "x"},
    )
    ask(served.stub, request("avatar", **refused[0]))
    before = _mib(served, "avatar")
    for inputs in (*refused, *refused):
        assert ask(served.stub, request("avatar", **inputs)).error.startswith("400 ")
    assert _mib(served, "avatar") < before + 64


def test_of_a_piece_only_its_speech_is_kept(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live(sequence, "first", start=True, face_file=face, format="mouth"))
    stream.until_over("first")
    before = _mib(served, "live")
    stream.send(live(sequence, "long", audio=np.resize(LONG, 480_000)))
    stream.until(lambda: bool(stream.answers["long"].frames))
    stream.send(*(live(sequence, f"piece-{n}", audio=SPEECH, background_file=bytes(32 << 20)) for n in range(6)))
    stream.send(request("live", "behind"))  # Triton refuses it, once it has taken the ones before
    stream.until_over("behind")
    time.sleep(0.3)
    assert _mib(served, "live") < before + 96
    stream.cancel()


def test_the_crops_of_a_tiny_video_count_too(served: Served, sequence: int, tmp_path: Path) -> None:
    frames = LiveSettings().live_memory_mib * (1 << 20) // (96 * 96 * 3) + 1
    loop = ["-vf", f"loop={frames}:1"]
    video = write_video(tmp_path / "tiny.mp4", np.zeros((1, 16, 16, 3), np.uint8), extra=loop).read_bytes()
    asked = live(sequence, "first", start=True, face_file=video, avatarFileType="mp4", box="0,16,0,16")
    assert ask(served.stub, asked).error.startswith("413 face_file: too much for a live session")


# --- ends


def test_triton_keeps_a_session_for_longer_than_its_longest_silence(served: Served) -> None:
    """Its clock begins with a request, ours when the request is answered: to begin, or half a minute of speech, may
    take longer than a silence may last."""
    config = served.stub.ModelConfig(pb.ModelConfigRequest(name="live")).config.sequence_batching
    assert config.max_sequence_idle_microseconds >= 6 * SEQUENCE_IDLE_SECONDS * 1_000_000


def test_a_folder_goes_even_where_its_removal_has_to_wait_and_is_cancelled(tmp_path: Path) -> None:
    """A stream that is cancelled while it begins may be cancelled twice: its session's pieces end the session, too."""

    async def cancelled_twice() -> list[Path]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        workspace = Workspace(tmp_path)
        workspace.open()
        written = asyncio.Event()

        async def job() -> None:
            async with workspace.folder() as folder:
                (folder / "face").write_bytes(b"face")
                written.set()
                await asyncio.sleep(SECONDS)

        task = asyncio.create_task(job())
        await written.wait()
        busy = asyncio.create_task(asyncio.to_thread(time.sleep, 0.3))  # the only thread
        await asyncio.sleep(0.1)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        await asyncio.gather(task, busy, return_exceptions=True)
        await asyncio.to_thread(time.sleep, 0)
        left = [path for path in workspace.root.rglob("*") if path.is_file()]
        workspace.close()
        return left

    assert asyncio.run(cancelled_twice()) == []
