"""Shared memory is used if possible, released afterwards, and never makes a call fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from avatar_client import AvatarClient, InvalidRequest, _shared_memory
from avatar_client._schema import DETECT_FACES
from avatar_client._shared_memory import PREFIX
from avatar_client.region_file import FOLDER
from tests.client.fake_server import FakeServer
from tests.support.region_registry import FakeClock

CLIENT = Path(__file__).parents[2] / "client"
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
BOXES = np.array([[10, 10, 150, 110]], np.int32)
WINDOWS = np.ones((3, 80, 16), np.float32)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of the clients in a test."""
    clock = FakeClock()
    monkeypatch.setattr(_shared_memory, "boot_seconds", clock)
    return clock


def files(pid: int) -> list[str]:
    """Return the names of the files of one process: others may run their tests at the same time."""
    return [path.name for path in FOLDER.glob(f"{PREFIX}{pid}-*")]


def shared(server: FakeServer) -> list[bool]:
    """Return for each call so far whether its frames were in shared memory."""
    return ["frames" in call.shared for call in server.calls]


def test_large_arrays_use_shared_memory_and_small_ones_the_message(client: AvatarClient, server: FakeServer) -> None:
    client.detect_faces(FRAMES)
    client.detect_faces(FRAMES[:, :20, :20])
    client.lipsync(FRAMES, BOXES, np.tile(WINDOWS, (5, 1, 1))[:3])
    client.lipsync(FRAMES[:1], BOXES, np.ones((30, 80, 16), np.float32))
    big, small, mouths, many = server.calls
    assert (big.shared, small.shared) == ({"frames"}, set())
    assert (mouths.shared, mouths.output_shared) == ({"frames"}, True)
    assert (many.shared, many.output_shared) == ({"mel"}, True)


def test_a_region_is_reused_and_unregistered_at_the_end(client: AvatarClient, server: FakeServer) -> None:
    for _ in range(5):
        client.detect_faces(FRAMES)
    assert shared(server) == [True] * 5
    assert server.registrations == 1
    client.close()
    assert not server.regions


def test_a_larger_call_replaces_the_region_by_a_larger_one(client: AvatarClient, server: FakeServer) -> None:
    client.detect_faces(FRAMES[:, :60])
    client.detect_faces(np.zeros((4, 600, 600, 3), np.uint8))
    client.detect_faces(FRAMES)
    assert len(server.regions) == 1
    assert server.registrations == 2


def test_a_region_has_no_file_name_while_it_is_used(client: AvatarClient, server: FakeServer) -> None:
    client.detect_faces(FRAMES)
    assert server.regions
    assert not files(os.getpid())


def test_after_a_rejection_no_region_is_registered_for_a_minute(
    client: AvatarClient, server: FakeServer, clock: FakeClock
) -> None:
    server.accepts_shared_memory = False
    expected = client.detect_faces(FRAMES)[0]
    server.accepts_shared_memory = True
    clock.now += 59
    np.testing.assert_array_equal(client.detect_faces(FRAMES)[0], expected)
    assert (server.registrations, shared(server)) == (1, [False, False])
    clock.now += 2
    np.testing.assert_array_equal(client.detect_faces(FRAMES)[0], expected)
    assert (server.registrations, shared(server)) == (2, [False, False, True])


def test_no_call_fails_when_the_server_has_lost_its_regions(
    client: AvatarClient, server: FakeServer, clock: FakeClock
) -> None:
    expected = client.detect_faces(FRAMES)[0]
    server.regions.clear()  # as after a restart
    np.testing.assert_array_equal(client.detect_faces(FRAMES)[0], expected)
    clock.now += 2
    np.testing.assert_array_equal(client.detect_faces(FRAMES)[0], expected)
    assert shared(server) == [True, False, True]


def test_a_server_that_loses_its_regions_repeatedly_gets_no_more(
    client: AvatarClient, server: FakeServer, clock: FakeClock
) -> None:
    for _ in range(2):
        client.detect_faces(FRAMES)
        server.regions.clear()
        client.detect_faces(FRAMES)
        clock.now += 2
    client.detect_faces(FRAMES)
    assert shared(server) == [True, False, True, False, False]


def test_invalid_input_is_still_rejected(client: AvatarClient, server: FakeServer) -> None:
    frames = np.zeros((5, 100, 100, 3), np.uint8)
    with pytest.raises(InvalidRequest, match="<= 4"):
        client._infer(DETECT_FACES, frames)
    assert client.detect_faces(FRAMES)[0].any()
    assert shared(server)[-1]


def test_concurrent_calls_use_different_regions(client: AvatarClient, server: FakeServer) -> None:
    wrong: list[int] = []

    def detect(n: int) -> None:
        frames = np.full((2, 150, 200, 3), n, np.uint8)
        for _ in range(10):
            if client.detect_faces(frames)[0][1, 0, 0] != n:
                wrong.append(n)

    threads = [threading.Thread(target=detect, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(server.regions) <= 6
    client.close()
    assert not server.regions


def test_a_region_that_the_server_still_uses_is_unregistered_later(client: AvatarClient, server: FakeServer) -> None:
    client.detect_faces(FRAMES)
    (name,) = server.in_use = set(server.regions)
    client.detect_faces(np.zeros((4, 600, 600, 3), np.uint8))
    assert name in server.regions
    server.in_use.clear()
    client.close()
    assert not server.regions


SCRIPT = """
import os, signal, sys
import numpy as np
from avatar_client import AvatarClient

client = AvatarClient(sys.argv[1])
client.detect_faces(np.zeros((2, 200, 200, 3), np.uint8))
print(os.getpid(), [name for name in os.listdir("/dev/shm") if name.startswith(f"avatar-client-{os.getpid()}-")])
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["exits", "killed"])
def test_a_process_that_does_not_close_its_client_leaves_no_file(server: FakeServer, end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, server.address, end],
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    assert shared(server) == [True]
    pid, _, own = done.stdout.partition(" ")
    assert own == "[]\n"
    assert not files(int(pid))
    if end == "exits":
        assert done.stderr == ""
        assert not server.regions  # a normal exit unregisters them
