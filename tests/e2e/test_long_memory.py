"""Triton needs no more memory for a long clip than for a short one; `make test-long` uses a longer clip."""

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
    """Return the peak memory, in bytes, of the server and the processes of its models while `work` runs."""
    server, highest, done = psutil.Process(triton.pid), [0], Event()

    def sample_memory() -> None:
        while not done.wait(0.05):
            highest[0] = max(
                highest[0], sum(one.memory_info().rss for one in (server, *server.children(recursive=True)))
            )

    sampler = Thread(target=sample_memory)
    sampler.start()
    try:
        work()
    finally:
        done.set()
        sampler.join()
    return highest[0]


def test_triton_needs_no_more_memory_for_a_long_clip(
    gateway: Gateway, triton: Triton, samples: Path, media: Callable[..., Path]
) -> None:
    def job(seconds: int) -> Callable[[], None]:
        speech = media(f"{seconds}.wav", "-stream_loop", "-1", "-i", str(samples / "speech.wav"), "-t", str(seconds))
        still = ["-loop", "1", "-i", str(samples / "face.png"), "-t", str(seconds), "-r", "25"]
        face = media(f"{seconds}.mp4", *still, "-vf", "scale=160:120", "-pix_fmt", "yuv420p", "-preset", "ultrafast")

        def run() -> None:
            response = post(gateway.url, face, speech, "mp4")
            assert response.status_code == 200, response.text
            assert int(response.headers["x-avatar-frames"]) == 25 * seconds

        return run

    job(SHORT)()  # some memory is allocated at first use and kept
    short, long = [peak(triton, job(seconds)) for seconds in (SHORT, LONG)]
    print(f"Triton {short >> 20} MiB at {SHORT} s, {long >> 20} MiB at {LONG} s of 160x120")
    assert long <= 1.2 * short
