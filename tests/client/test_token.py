"""The token for shared memory: its sources, its use by both clients, and calls without it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from avatar.inference.grpc_client import GrpcInferenceClient
from avatar_client import AvatarClient, access
from avatar_client.access import HEADER, Token
from tests.client.fake_server import FakeServer

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
SECRET = "secret-of-this-server"  # noqa: S105


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (access.TOKEN_VARIABLE, access.FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def guarded(server: FakeServer) -> None:
    server.token = SECRET


async def detect(kind: str, address: str, token: str | None) -> np.ndarray:
    """Call a server once, with the client for threads or that for asyncio."""
    if kind == "threads":
        with AvatarClient(address, token=token) as client:
            return client.detect_faces(FRAMES)[0]
    models = GrpcInferenceClient(address, token=token or "")
    try:
        return (await models.detect_faces(FRAMES))[0]
    finally:
        await models.close()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
async def test_with_the_token_arrays_are_sent_through_shared_memory(kind: str, server: FakeServer) -> None:
    await detect(kind, server.address, SECRET)
    assert server.calls[0].shared == {"frames"}
    assert not server.regions  # unregistered at the end, which needs the token too


@pytest.mark.parametrize(
    ("token", "level", "reason"),
    [("", "INFO", "Triton requires a token"), ("another-token", "WARNING", "Triton does not accept the token")],
    ids=["none", "another"],
)
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
async def test_without_the_right_token_arrays_are_sent_by_grpc_and_the_reason_is_logged_once(
    kind: str, server: FakeServer, caplog: pytest.LogCaptureFixture, token: str, level: str, reason: str
) -> None:
    caplog.set_level(logging.INFO)
    expected = await detect(kind, server.address, SECRET)
    caplog.clear()
    np.testing.assert_array_equal(await detect(kind, server.address, token), expected)
    assert server.calls[1].shared == set()
    (record,) = [each for each in caplog.records if "shared memory" in each.message]
    assert (record.levelname, reason in record.message) == (level, True)
    assert SECRET not in caplog.text and "another-token" not in caplog.text


def test_the_token_is_read_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.TOKEN_VARIABLE, SECRET)
    with AvatarClient(server.address) as client:
        client.detect_faces(FRAMES)
    assert server.calls[0].shared == {"frames"}


def test_the_new_token_of_a_restarted_server_is_read_from_the_file(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv(access.FILE_VARIABLE, str(file))
    monkeypatch.setattr("avatar_client.region_pool.RETRY_DELAY", 0)
    with AvatarClient(server.address) as client:
        client.detect_faces(FRAMES)
        server.regions.clear()
        server.token = f"{SECRET}-after-the-restart"
        file.write_text(server.token)
        for _ in range(2):
            client.detect_faces(FRAMES)
    assert [bool(call.shared) for call in server.calls] == [True, False, True]


def test_the_variable_has_priority_over_the_file_and_both_are_optional(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file")
    both = {access.TOKEN_VARIABLE: "of-the-variable", access.FILE_VARIABLE: str(file)}
    assert Token.from_environment(both).metadata() == ((HEADER, "of-the-variable"),)
    assert Token.from_environment({access.FILE_VARIABLE: str(file)}).metadata() == ((HEADER, "of-the-file"),)
    assert Token.from_environment({}).metadata() == ()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", "Schl\u00fcssel".encode(), b"two\nlines"])
def test_a_file_without_a_valid_token_counts_as_missing(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert Token(file=file).metadata() == ()


def test_a_token_is_not_in_its_representation() -> None:
    assert SECRET not in repr(Token(SECRET)) and SECRET not in str(Token(SECRET))
