"""A long clip needs the memory of a short one in Triton too; `make test-long` takes a longer one."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import psutil

from embedded.server import Triton
from tests.support.gateway_process import Gateway
from tests.support.results import post

LONG = int(os.environ.get("AVATAR_TEST_SECONDS", "40")) // 10
SHORT = 1


def peak(triton: Triton, work: Callable[[], None]) -> int:
    """Bytes that the server and its models' processes had at most while `work` ran."""
    server, most, over = psutil.Process(triton.pid), [0], Event()

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], sum(one.memory_info().rss for one in (server, *server.children(recursive=True))))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return most[0]


def test_triton_needs_no_more_memory_for_a_long_clip(
    gateway: Gateway, triton: Triton, samples: Path, media: Callable[..., Path]
) -> None:
    def job(seconds: int) -> Callable[[], None]:
        speech = media(f"{seconds}.wav", "-stream_loop", "-1", "-i", str(samples / "speech.wav"), "-t", str(seconds))
        still = ["-loop", "1", "-i", str(samples / "face.png"), "-t", str(seconds), "-r", "25"]
        face = media(f"{seconds}.mp4", *still, "-vf", "scale=160:120", "-pix_fmt", "yuv420p", "-preset", "ultrafast")

        def run() -> None:
            answer = post(gateway.url, face, speech, "mp4")
            assert answer.status_code == 200, answer.text
            assert int(answer.headers["x-avatar-frames"]) == 25 * seconds

        return run

    job(SHORT)()  # what is taken at first use and kept
    short, long = [peak(triton, job(seconds)) for seconds in (SHORT, LONG)]
    print(f"Triton {short >> 20} MiB at {SHORT} s, {long >> 20} MiB at {LONG} s of 160x120")
    assert long <= 1.2 * short
