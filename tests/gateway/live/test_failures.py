"""What ends a live session, or keeps it from starting: each has a sentence, a code, and a close."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from avatar.inference.grpc_client import GrpcInferenceClient
from tests.gateway.conftest import Live
from tests.gateway.live.conftest import Talk
from tests.support.api_keys import add_key
from tests.support.fake_live import FakeLive
from tests.support.fake_triton import serve as serve_triton
from tests.support.gateway_fakes import eventually
from tests.support.live_callers import Caller, calling

SPEECH = np.arange(1, 1601, dtype=np.int16)
FULL = "503 limit of 4 live sessions reached; try again later"


async def failure(caller: Caller, *, closed: int) -> dict[str, Any]:
    """Return the error that ends a session, and check its close."""
    error = await caller.mark("error")
    code, reason = await caller.close_code()
    assert code == closed
    assert error["detail"].startswith(reason)
    assert error["request_id"]
    return error


async def test_one_session_too_many_says_when_to_try_again(talk: Talk) -> None:
    gateway = await talk(live_sockets=1)
    async with calling(gateway.url) as first:
        await first.start()
        async with calling(gateway.url) as second:
            error = await failure(second, closed=1013)
        assert (error["status"], error["code"], error["retry_after"]) == (503, "busy", 5)
        assert "limit of 1 live sessions" in error["detail"]


async def test_one_address_may_have_half_of_the_sessions(talk: Talk) -> None:
    gateway = await talk(live_sockets=4)
    async with calling(gateway.url) as first, calling(gateway.url) as second:
        await first.start()
        await second.start()
        async with calling(gateway.url) as third:
            error = await failure(third, closed=1013)
        assert (error["status"], error["code"]) == (429, "too_many_requests")


async def test_a_full_model_is_busy(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    models.refusal = FULL
    async with calling(gateway.url) as caller:
        await caller.start()
        assert caller.marks[0]["code"] == "busy"
        assert caller.marks[0]["retry_after"] > 0
        assert (await caller.close_code())[0] == 1013


async def test_a_wrong_option_is_the_callers_fault(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    models.refusal = "400 pads: four numbers expected"
    async with calling(gateway.url) as caller:
        error = await caller.start(options={"pads": "1"})
        assert (error["status"], error["code"], error["field"]) == (400, "invalid_field", "pads")
        assert (await caller.close_code())[0] == 1008


async def test_a_defect_of_the_model_is_not_described(talk: Talk, models: FakeLive) -> None:
    gateway = await talk()
    models.failure = "500 internal error; see the server's log for request 1"
    async with calling(gateway.url) as caller:
        await caller.start()
        await caller.speak(SPEECH)
        error = await failure(caller, closed=1011)
    assert (error["status"], error["code"], error["detail"]) == (500, "internal_error", "internal error")


async def test_a_triton_that_dies_ends_the_session_with_a_sentence(
    models: FakeLive, live: Callable[..., Awaitable[Live]]
) -> None:
    serving = serve_triton(models)
    client = GrpcInferenceClient(await serving.__aenter__(), 5.0, shared_memory=False)
    gateway = await live(models=client)
    async with calling(gateway.url) as caller:
        await caller.start()
        await caller.picture()
        await serving.__aexit__(None, None, None)
        error = await failure(caller, closed=1013)
        assert (error["status"], error["code"]) == (503, "unavailable")
        assert "lost with its Triton" in error["detail"]
    async with calling(gateway.url) as caller:
        await caller.start()
        assert caller.marks[0]["code"] == "unavailable"
        assert (await caller.close_code())[0] == 1013
    await client.close()


async def test_a_silent_caller_is_ended(talk: Talk) -> None:
    gateway = await talk(live_idle_seconds=0.3)
    async with calling(gateway.url) as caller:
        await caller.start()
        error = await failure(caller, closed=1008)
    assert (error["status"], error["code"]) == (408, "idle_caller")


async def test_a_caller_that_does_not_start_is_ended(talk: Talk) -> None:
    gateway = await talk(header_timeout=0.3)
    async with calling(gateway.url) as caller:
        error = await failure(caller, closed=1008)
    assert "start" in error["detail"]


@pytest.mark.parametrize(
    ("size", "sent", "code", "field"),
    [
        (2**21, [], "too_large", None),
        (100, [b"x" * 101], "invalid_field", "face_bytes"),
        (100, [b"x" * 60, "{}"], "invalid_field", "face_bytes"),
        (100, [b"x" * 60], "idle_caller", None),
    ],
    ids=["too large", "more than announced", "a text in between", "not all of it"],
)
async def test_a_face_that_does_not_come_as_announced(
    talk: Talk, models: FakeLive, size: int, sent: list[bytes | str], code: str, field: str | None
) -> None:
    gateway = await talk(live_face_mib=1, upload_timeout=0.5)
    async with calling(gateway.url) as caller:
        await caller.send("start", face_bytes=size)
        for each in sent:
            await caller.socket.send(each)
        error = await failure(caller, closed=1008)
    assert (error["code"], error.get("field")) == (code, field)
    assert not models.starts


async def test_a_message_that_is_too_large_is_refused(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as caller:
        await caller.start()
        with suppress(ConnectionClosed):
            await caller.socket.send(bytes(5 << 20))
        assert (await caller.close_code())[0] == 1009


WRONG_FIRST: list[tuple[str | bytes, str]] = [
    ("not JSON", "message"),
    ("[]", "message"),
    ("[" * 50_000, "message"),
    (" " * 70_000, "message"),
    ('{"type": "start", "avatar": "a", "options": {"pads": "\\ud800"}}', "message"),
    ('{"type": "start", "avatar": "a", "options": {"\\ud800": "1"}}', "message"),
    ('{"type": "start", "avatar": "a", "options": {"pads": NaN}}', "message"),
    ('{"type": "hello"}', "type"),
    ('{"type": ["start"]}', "type"),
    ('{"type": "end"}', "type"),
    ('{"type": "start"}', "avatar"),
    ('{"type": "start", "avatar": "a", "face_bytes": 3}', "avatar"),
    ('{"type": "start", "avatar": 7}', "avatar"),
    ('{"type": "start", "face_bytes": 0}', "face_bytes"),
    ('{"type": "start", "face_bytes": "3"}', "face_bytes"),
    ('{"type": "start", "avatar": "a", "sample_rate": 96000}', "sample_rate"),
    ('{"type": "start", "avatar": "a", "format": "bgr"}', "format"),
    ('{"type": "start", "avatar": "a", "echo": "yes"}', "echo"),
    ('{"type": "start", "avatar": "a", "qualty": 1}', "qualty"),
    ('{"type": "start", "avatar": "a", "options": {"qualty": "draft"}}', "options.qualty"),
    ('{"type": "start", "avatar": "a", "options": {"quality": "draft"}}', "options.quality"),
    ('{"type": "start", "avatar": "a", "options": {"pads": [1]}}', "options.pads"),
    ('{"type": "start", "avatar": "prepared-1", "options": {"model": "wav2lip"}}', "options"),
    (b"\0\0", "type"),
]
WRONG_LATER: list[tuple[str | bytes, str]] = [
    (json.dumps({"type": "start", "avatar": "prepared-1"}), "type"),
    (json.dumps({"type": "clear", "shown": -2}), "shown"),
    (json.dumps({"type": "segment_end", "now": True}), "now"),
    (b"abc", "pcm"),
]


async def test_a_wrong_first_message_is_answered_with_its_field(talk: Talk) -> None:
    gateway = await talk()
    for message, field in WRONG_FIRST:
        async with calling(gateway.url) as caller:
            await caller.socket.send(message)
            error = await failure(caller, closed=1008)
        assert (error["status"], error["code"], error["field"]) == (400, "invalid_field", field), message[:80]
        assert error["detail"].startswith(f"{field}: ")


async def test_a_wrong_later_message_ends_the_session(talk: Talk) -> None:
    gateway = await talk()
    for message, field in WRONG_LATER:
        async with calling(gateway.url) as caller:
            await caller.start()
            await caller.socket.send(message)
            assert (await failure(caller, closed=1008))["field"] == field


async def test_pages_of_foreign_web_sites_are_rejected_before_the_upgrade(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await talk(cors_origins=("https://www.example.com",))
    for origin in ("https://www.example.com", gateway.url, None):
        async with calling(gateway.url, origin=origin) as caller:
            assert (await caller.start())["type"] == "session"
    for origin in ("https://evil.example", "https://www.example.com.evil.example", "null", "https://"):
        with pytest.raises(InvalidStatus) as rejected:
            async with calling(gateway.url, origin=origin):
                pass
        answer = rejected.value.response
        assert answer.status_code == 403
        assert json.loads(answer.body or b"")["code"] == "foreign_origin"
        assert answer.headers["X-Request-ID"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_service_with_keys_takes_them_from_a_header_or_the_first_message(talk: Talk, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    key = add_key(keys, "alice", "--running", "1")
    gateway = await talk(api_keys=keys)
    with pytest.raises(InvalidStatus) as rejected:
        async with calling(gateway.url, additional_headers={"Authorization": "Bearer avk_wrong"}):
            pass
    assert rejected.value.response.status_code == 401
    assert rejected.value.response.headers["WWW-Authenticate"]
    for wrong in ({}, {"key": "avk_wrong"}):
        async with calling(gateway.url) as caller:
            await caller.send("start", avatar="prepared-1", **wrong)
            error = await failure(caller, closed=1008)
            assert (error["status"], error["code"]) == (401, "unauthorized")
    async with calling(gateway.url, additional_headers={"Authorization": f"Bearer {key}"}) as caller:
        assert (await caller.start())["type"] == "session"
        async with calling(gateway.url) as another:
            await another.send("start", avatar="prepared-1", key=key)
            error = await failure(another, closed=1013)
            assert (error["status"], error["code"]) == (429, "too_many_running")
    await eventually(lambda: gateway.service.live.running == 0)
    async with calling(gateway.url) as caller:
        assert (await caller.start(key=key))["type"] == "session"


async def test_the_owner_of_a_key_may_start_a_number_of_sessions_per_minute(talk: Talk, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    key = add_key(keys, "alice", "--uploads-per-minute", "2")
    gateway = await talk(api_keys=keys)
    for _ in range(2):
        async with calling(gateway.url) as caller:
            assert (await caller.start(key=key))["type"] == "session"
    async with calling(gateway.url) as caller:
        await caller.send("start", avatar="prepared-1", key=key)
        error = await failure(caller, closed=1013)
    assert error["code"] == "too_many_uploads"
    assert error["retry_after"] > 0
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        assert (await client.post(gateway.url)).json()[
            "code"
        ] == "too_many_uploads"  # forms and sessions count together


async def test_a_service_without_live_sessions_says_so(talk: Talk) -> None:
    gateway = await talk(live_sockets=0)
    with pytest.raises(InvalidStatus) as rejected:
        async with calling(gateway.url):
            pass
    assert rejected.value.response.status_code == 501
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{gateway.url}/v1/live")).json()["code"] == "live_disabled"


async def test_a_stop_tells_the_callers_and_leaves_nothing(talk: Talk, models: FakeLive) -> None:
    gateway = await talk(shutdown_grace=30.0)
    async with calling(gateway.url) as speaking, calling(gateway.url) as silent:
        await speaking.start()
        await speaking.speak(SPEECH)
        gateway.server.should_exit = True
        error = await failure(speaking, closed=1012)
        assert (error["status"], error["code"]) == (503, "shutting_down")
        assert (await failure(silent, closed=1012))["code"] == "shutting_down"
    await eventually(lambda: not models.sessions)


async def test_a_draining_gateway_takes_no_new_sessions(talk: Talk) -> None:
    gateway = await talk()
    async with calling(gateway.url) as running:
        await running.start()
        gateway.jobs.drain()
        async with calling(gateway.url) as caller:
            assert (await failure(caller, closed=1012))["code"] == "shutting_down"
        assert (await running.picture()).index >= 0


async def test_a_caller_that_does_not_read_is_cut_off(talk: Talk, models: FakeLive) -> None:
    models.jpeg_bytes = 500_000
    gateway = await talk(upload_timeout=0.5)
    async with calling(gateway.url, max_queue=1) as caller:
        await caller.start(rest=False)
        await caller.speak(np.zeros(16_000 * 20, np.int16))  # 500 frames of 0.5 MB
        await eventually(lambda: gateway.service.live.running == 0)
        await eventually(lambda: not models.sessions)
        with pytest.raises(ConnectionClosed):
            while True:
                await caller.next()
    assert len(caller.pictures) < 200
