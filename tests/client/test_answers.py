"""An answer that is read while the call that it answers is still being made, by another thread."""

from __future__ import annotations

import threading
import time

import pytest

from avatar_client import AvatarClient, AvatarClientError, Cleared
from avatar_client._live import LiveSession
from tests.client.fake_server import SECONDS, FakeServer
from tests.client.test_conversation import FACE, answers, cleared

PATIENCE = 1.0  # seconds without a response that is due, after which the client gives up


def test_an_answer_is_not_waited_for_after_it_was_read(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.live = answers(cleared(-1))
    read, failures = threading.Event(), list[AvatarClientError]()
    put = LiveSession._put

    def put_and_be_overtaken(session: LiveSession, *inputs: object, **flags: bool) -> None:
        put(session, *inputs, **flags)  # type: ignore[arg-type]
        if not flags:
            assert read.wait(SECONDS)

    def read_events(session: LiveSession) -> None:
        try:
            for event in session.events():
                if isinstance(event, Cleared):
                    read.set()
        except AvatarClientError as error:
            failures.append(error)

    with AvatarClient(server.address, timeout=PATIENCE) as client:
        session = client.live(FACE)
        monkeypatch.setattr(LiveSession, "_put", put_and_be_overtaken)
        reader = threading.Thread(target=read_events, args=(session,), daemon=True)
        reader.start()
        session.clear()
        time.sleep(2 * PATIENCE)
        session.end()
        reader.join(SECONDS)
    assert failures == []
    assert session.summary
