"""Streams that are cancelled, time out or lose their client: nothing of them is left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from avatar.resources.workspace import Workspace
from tests.support.live_streams import (
    GONE,
    LONG,
    SECONDS,
    SPEECH,
    Stream,
    live,
)
from tests.support.triton_server import Served
from tests.support.triton_streams import request


def test_a_cancelled_stream_ends_its_session_for_the_other_streams_of_it(
    served: Served, face: bytes, sequence: int
) -> None:
    ours, theirs = Stream(served), Stream(served)
    ours.send(live(sequence, "begin", start=True, face_file=face))
    ours.until_over("begin")
    names = [f"ours-{n}" for n in range(20)]  # long enough for the server to notice the cancellation meanwhile
    ours.send(*(live(sequence, name, audio=LONG) for name in names))
    ours.until(lambda: bool(ours.answers[names[0]].frames))
    theirs.send(live(sequence, "theirs", audio=LONG))
    time.sleep(0.2)
    theirs.cancel()
    ours.end()
    assert ours.answers[names[-1]].error == GONE


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
from tests.support.triton_streams import outputs, request, stub

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
