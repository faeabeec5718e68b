"""The header that says what was done with unusual files."""

import httpx

from tests.support.gateway_fakes import FakeRender, form


async def test_notes_are_sent_in_a_header(client: httpx.AsyncClient, render: FakeRender) -> None:
    render.notes = ("audio_file: 3.0 s of gaps in its clock were closed", "background: it is a note")
    response = await client.post("/", files=form(), headers={"Origin": "https://pages.example"})
    assert response.headers["x-avatar-notes"] == "; ".join(render.notes)
    assert "x-avatar-notes" in response.headers["access-control-expose-headers"].lower()


async def test_ordinary_files_have_no_notes(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form())
    assert "x-avatar-notes" not in response.headers
