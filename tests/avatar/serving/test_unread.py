"""Streams whose callers do not read: recognized by what was sent, and by the memory of the server."""

from __future__ import annotations

import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from avatar.pipeline import render
from avatar.serving.live_access import UnreadFrames
from avatar.serving.render_model import stream
from avatar.serving.request import NotRead, StreamRequest
from avatar.serving.server_memory import UnreadLimit
from avatar.testing import FakeInference
from tests.support.media import request, tone, write_still, write_wav

MIB = 1 << 20
# A model's process is a child of the server; here of the test. It answers each number of unread bytes.
CHILD = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parents[3])!r}]
from avatar.serving.server_memory import UnreadLimit
limit = UnreadLimit(64 << 20)
for line in sys.stdin:
    if line.strip() == "restart":
        limit.restart(200 << 20)
        print("ok", flush=True)
    else:
        print(limit.is_exceeded(int(line) << 20), flush=True)
"""


def _allocated(mib: int) -> mmap.mmap:
    """Return new memory that is written to; the heap could give what other tests have freed."""
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(bytes(mib * MIB))
    return memory


def test_the_limit_is_exceeded_once_the_servers_memory_has_grown_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin and child.stdout

        def ask(text: str) -> str:
            assert child.stdin and child.stdout
            print(text, file=child.stdin, flush=True)
            return child.stdout.readline().strip()

        assert ask("200") == "False"
        held = _allocated(160)
        assert ask("200") == "True"
        assert ask("32") == "False"
        assert ask("restart") == "ok"
        assert ask("400") == "False"
        more = _allocated(160)
        assert ask("400") == "True"
        assert len(held) == len(more) == 160 * MIB


def test_what_is_acknowledged_counts_as_read() -> None:
    output = UnreadFrames()
    for _ in range(10):
        output.add(100)
    assert output.unread == 1000
    output.acknowledge(3)
    assert output.unread == 600
    output.acknowledge(1)  # a late request
    assert output.unread == 600
    output.acknowledge(10**6)
    assert output.unread == 0
    output.add(100)
    assert output.unread == 100


class Sent:
    """A request whose responses are counted."""

    def __init__(self) -> None:
        self.id, self.chunks = "test", 0

    async def send(self, **outputs: Any) -> None:
        self.chunks += "video" in outputs


class Exceeded(UnreadLimit):
    """A limit that is exceeded from a number of bytes on."""

    def is_exceeded(self, unread: int) -> bool:
        return unread > self.limit


@pytest.mark.parametrize("limit", [1, 10**9])
async def test_a_video_that_nobody_reads_is_ended_with_an_error(tmp_path: Path, limit: int) -> None:
    still, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "speech.wav", tone(4))
    job = replace(request(tmp_path, still, speech, still=True), streamed=True)
    sent = Sent()
    running = stream(cast("StreamRequest", sent), render(job, FakeInference()), Exceeded(limit))
    if limit == 1:
        with pytest.raises(NotRead, match="read the responses while they are sent"):
            await running
        assert sent.chunks == 1
    else:
        assert (await running).frames == 100
        assert sent.chunks > 1
