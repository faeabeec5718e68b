"""Streams that are cancelled, time out or lose their client leave no session, process or file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from avatar.resources.workspace import Workspace
from tests.support.files import files_below
from tests.support.live_streams import (
    FORGOTTEN,
    LONG_SPEECH,
    SECONDS,
    SESSION_CLOSED,
    SPEECH,
    Stream,
    live_request,
)
from tests.support.triton_server import Served
from tests.support.triton_streams import make_request


def next_error(stream: Stream, sequence: int) -> str:
    """Send a piece of speech, and return the error that it is answered with; none while the session is open."""
    name = f"next-{len(stream.finished)}"
    stream.send(live_request(sequence, name, audio=SPEECH[:320]))
    stream.wait_until_finished(name)
    return stream.responses[name].error


def test_cancelling_one_stream_of_a_session_ends_it_for_its_other_streams(
    served: Served, face: bytes, sequence: int
) -> None:
    ours, theirs = Stream(served), Stream(served)
    ours.send(live_request(sequence, "begin", start=True, face_file=face))
    ours.wait_until_finished("begin")
    # work on which the other stream's request has to wait until it is cancelled
    ours.send(*(live_request(sequence, f"ours-{n}", audio=LONG_SPEECH) for n in range(5)))
    ours.wait_until(lambda: bool(ours.responses["ours-0"].frames))
    theirs.send(live_request(sequence, "theirs", audio=LONG_SPEECH))
    # the model rejects it at once, and has the one before it then: Triton alone would answer the cancellation of that
    theirs.send(live_request(sequence, "after", clear=np.array([1_000_000], np.int32)))
    theirs.wait_until_finished("after")
    assert theirs.responses["after"].error.startswith("400 clear: ")
    assert "theirs" not in theirs.finished
    theirs.cancel()
    ours.wait_until(lambda: next_error(ours, sequence) == SESSION_CLOSED)
    ours.end()


def test_a_cancelled_stream_of_many_pieces_leaves_no_session(served: Served, face: bytes, sequence: int) -> None:
    stream = Stream(served)
    stream.send(live_request(sequence, "first", start=True, face_file=face))
    stream.send(*(live_request(sequence, f"piece-{n}", audio=LONG_SPEECH) for n in range(10)))
    stream.wait_until(lambda: bool(stream.responses["piece-0"].frames))
    stream.cancel()
    after = Stream(served)

    def session_is_closed() -> bool:
        error = next_error(after, sequence)
        return error == SESSION_CLOSED or FORGOTTEN in error

    after.wait_until(session_is_closed)
    after.end()


def test_a_job_whose_deadline_passes_leaves_nothing(served: Served, samples: Path) -> None:
    files = {"face_file": (samples / "face.png").read_bytes(), "audio_file": (samples / "speech.wav").read_bytes()}
    stream = Stream(served, seconds=1.0)
    stream.send(make_request("avatar", **files))
    stream.wait_until(lambda: stream.code is not None)
    assert stream.code is grpc.StatusCode.DEADLINE_EXCEEDED


CLIENT = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from tests.support.triton_streams import make_request, outputs, stub

face, speech = (Path({samples!r}, name).read_bytes() for name in ("face.png", "speech.wav"))
with stub({address!r}) as server:
    request = make_request("avatar", "killed", face_file=face, audio_file=speech)
    for response in server.ModelStreamInfer(iter([request])):
        if outputs(response).get("stage") == "encode":
            print("encoding", flush=True)
"""


def test_a_client_that_is_killed_leaves_nothing(served: Served, samples: Path) -> None:
    paths = [str(Path(__file__).parents[3])]
    code = CLIENT.format(paths=paths, samples=str(samples), address=served.triton.grpc_address)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as client:
        assert client.stdout
        assert client.stdout.readline() == b"encoding\n"
        client.kill()
    end = time.monotonic() + SECONDS
    while "avatar [killed] the client disconnected" not in served.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert "avatar [killed] the client disconnected" in served.log.read_text()


def test_the_folder_of_a_job_that_is_cancelled_twice_is_removed(tmp_path: Path) -> None:
    """The second cancellation arrives while the removal waits for a thread.

    A stream cancels its session, and so does each of its requests.
    """

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
        left = files_below(workspace.root)
        workspace.close()
        return left

    assert asyncio.run(cancelled_twice()) == []
