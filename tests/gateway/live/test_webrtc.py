"""Live sessions over WebRTC, with a peer in this process on 127.0.0.1."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from gateway.webrtc.peer import Peer
from tests.gateway.conftest import Live
from tests.gateway.live.conftest import Talk, close_slowly
from tests.support.fake_live import INFO, FakeLive
from tests.support.gateway_fakes import eventually

SECONDS = 30.0
RATE = 48_000
PATH = "/v1/live/webrtc"
QUERY = {"avatar": str(INFO["avatar"])}


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both peers offer 127.0.0.1, which aioice leaves out, and nothing else."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])


class Microphone(MediaStreamTrack):
    """Silence, or a tone while `is_loud`, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.is_loud = False
        self._sent, self._start = 0, 0.0

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = asyncio.get_running_loop().time()
        self._start = self._start or now
        await asyncio.sleep(self._start + self._sent / RATE - now)
        times = (self._sent + np.arange(960)) / RATE
        tone = (np.sin(2 * np.pi * 440 * times) * 12_000 * self.is_loud).astype(np.int16)
        frame = AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._sent
        self._sent += 960
        return frame


@dataclass
class Visitor:
    """A browser's side of a session; remembers what it has received."""

    url: str
    connection: RTCPeerConnection = field(default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[])))
    microphone: Microphone = field(default_factory=Microphone)
    light: list[float] = field(default_factory=list)  # mean of each image
    sound: list[float] = field(default_factory=list)  # loudness of each 20 ms
    said: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def call(self, params: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        """Send the offer, and take the answer if there is one."""
        self.connection.addTrack(self.microphone)
        self.connection.addTransceiver("video", direction="recvonly")
        self.control = self.connection.createDataChannel("control")
        self.control.on("message", lambda text: self.said.append(json.loads(text)))
        self.connection.on("track", lambda track: self.tasks.append(asyncio.create_task(self._take(track))))
        await self.connection.setLocalDescription(await self.connection.createOffer())
        offer = self.connection.localDescription.sdp
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            answer = await client.post(
                self.url + PATH, content=offer, params=params, headers={"Content-Type": "application/sdp", **headers}
            )
        if answer.status_code == 201:
            await self.connection.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        return answer

    def send(self, kind: str, **fields: Any) -> None:
        self.control.send(json.dumps({"type": kind, **fields}))

    def types(self) -> list[str]:
        return [each["type"] for each in self.said]

    async def _take(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, VideoFrame):
                self.light.append(float(frame.to_ndarray(format="gray").mean()))
            elif isinstance(frame, AudioFrame):
                self.sound.append(float(np.abs(frame.to_ndarray().astype(np.float64)).mean()))


@asynccontextmanager
async def visiting(gateway: Live) -> AsyncIterator[Visitor]:
    visitor = Visitor(gateway.url)
    try:
        yield visitor
    finally:
        await visitor.connection.close()
        for task in visitor.tasks:
            task.cancel()
        await asyncio.gather(*visitor.tasks, return_exceptions=True)


async def test_a_face_rests_speaks_and_rests_again_until_the_visitor_ends_it(talk: Talk, models: FakeLive) -> None:
    models.draws = True
    gateway = await talk()
    async with visiting(gateway) as visitor:
        answer = await visitor.call(QUERY)
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == "application/sdp"
        assert answer.headers["location"].startswith(f"{PATH}/")
        await eventually(lambda: len(visitor.light) > 10 and len(visitor.sound) > 10)
        assert max(visitor.light) < 100  # dark: there is no speech
        visitor.microphone.is_loud = True
        await eventually(lambda: visitor.light[-1] > 150 and visitor.sound[-1] > 1000)
        visitor.microphone.is_loud = False
        await eventually(lambda: "segment" in visitor.types())
        await eventually(lambda: visitor.light[-1] < 100 and visitor.sound[-1] < 100)
        visitor.send("end")
        await eventually(lambda: "summary" in visitor.types())
    assert visitor.types()[0] == "session"
    assert visitor.said[0]["sample_rate"] == RATE
    assert "token" not in visitor.said[0]
    assert models.starts[0]["sample_rate"].tolist() == [RATE]
    assert models.ended == 1


async def test_clear_drops_what_was_not_played(talk: Talk, models: FakeLive) -> None:
    models.draws = True
    gateway = await talk()
    async with visiting(gateway) as visitor:
        await visitor.call(QUERY)
        visitor.microphone.is_loud = True
        await eventually(lambda: bool(visitor.light) and visitor.light[-1] > 150)
        visitor.microphone.is_loud = False
        visitor.send("clear")
        await eventually(lambda: "cleared" in visitor.types())
        await eventually(lambda: visitor.light[-1] < 100)


async def test_a_session_is_deleted_by_its_location(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with visiting(gateway) as visitor, httpx.AsyncClient(base_url=gateway.url) as client:
        location = (await visitor.call(QUERY)).headers["location"]
        await eventually(lambda: "session" in visitor.types())
        assert gateway.service.live.running == 1
        assert (await client.delete(location)).status_code == 204
        await eventually(lambda: not gateway.service.live.peers and not models.sessions)
        again = await client.delete(location)
        assert (again.status_code, again.json()["code"]) == (404, "session_not_found")


async def test_a_visitor_that_leaves_ends_the_session(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    async with visiting(gateway) as visitor:
        await visitor.call(QUERY)
        await eventually(lambda: "session" in visitor.types())
    await eventually(lambda: not models.sessions and gateway.service.live.running == 0)


async def test_a_stop_tells_the_visitor(talk: Talk) -> None:
    gateway = await talk()
    async with visiting(gateway) as visitor:
        await visitor.call(QUERY)
        await eventually(lambda: "session" in visitor.types())
        gateway.server.should_exit = True
        await eventually(lambda: "error" in visitor.types())
        assert visitor.said[-1]["code"] == "shutting_down"


async def test_wrong_calls_are_answered_with_their_reason(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    headers = {"Content-Type": "application/sdp"}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client:
        answers = [
            await client.post(PATH, content="v=0", headers=headers),
            await client.post(PATH, params=QUERY, content="{}", headers={"Content-Type": "application/json"}),
            await client.post(PATH, params=QUERY, content="nothing", headers=headers),
            await client.post(PATH, params=QUERY, content="v=0\r\ns=-\r\nt=0 0\r\n", headers=headers),
            await client.post(PATH, params={"avatar": "x", "qualty": "1"}, content="v=0", headers=headers),
            await client.post(PATH, params=QUERY | {"background": "White"}, content="v=0", headers=headers),
            await client.post(PATH, params={"avatar": "unknown"}, content="v=0", headers=headers),
            await client.post(PATH, params=QUERY, content="x" * 300_000, headers=headers),
        ]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (400, "invalid_field"),
        (415, "unsupported_type"),
        (400, "invalid_field"),
        (400, "invalid_field"),
        (400, "invalid_field"),
        (400, "invalid_field"),
        (404, "avatar_not_found"),
        (413, "too_large"),
    ]
    assert answers[2].json()["detail"].startswith("offer: ")
    await eventually(lambda: not models.sessions)
    assert not gateway.service.live.peers
    assert not gateway.service.live.running


async def test_a_visitor_may_start_the_next_session_when_its_session_is_deleted(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_slowly(monkeypatch, Peer)
    gateway = await talk(live_sockets=1)
    async with visiting(gateway) as first, visiting(gateway) as second:
        location = (await first.call(QUERY)).headers["location"]
        async with httpx.AsyncClient(base_url=gateway.url, timeout=SECONDS) as client:
            assert (await client.delete(location)).status_code == 204
        assert (await second.call(QUERY)).status_code == 201


async def test_without_a_place_there_is_no_session(talk: Talk) -> None:
    gateway = await talk(live_sockets=1)
    async with visiting(gateway) as first, visiting(gateway) as second:
        assert (await first.call(QUERY)).status_code == 201
        answer = await second.call(QUERY)
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert answer.headers["retry-after"]


async def test_a_silent_visitor_is_ended(talk: Talk) -> None:
    gateway = await talk(live_idle_seconds=1.0)
    async with visiting(gateway) as visitor:
        await visitor.call(QUERY)
        await eventually(lambda: "error" in visitor.types())
        assert visitor.said[-1]["code"] == "idle_caller"


async def test_a_gateway_without_aiortc_says_what_to_install(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.webrtc.routes.find_spec", lambda _: None)
    gateway = await talk()
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post(PATH, params=QUERY, content="v=0", headers={"Content-Type": "application/sdp"})
    assert (answer.status_code, answer.json()["code"]) == (501, "no_webrtc")
    assert "aiortc" in answer.json()["detail"]
