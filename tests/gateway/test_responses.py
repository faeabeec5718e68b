"""Responses: headers, errors, request ids. The job itself is a fake."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from avatar.errors import AvatarError, FaceNotFound, InvalidField, Unavailable
from avatar.events import Event, Progress
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from lipsync.errors import InvalidInput
from tests.support.gateway_fakes import DownModels, FakeRender, Serve, form, leftovers

ORIGIN = {"Origin": "https://pages.example"}


async def test_a_response_has_the_number_of_frames_and_the_time_of_each_stage(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form())
    assert response.headers["x-avatar-frames"] == "3"
    timing = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    assert list(timing) == ["upload", "queue", "detect", "lip-sync"]
    assert (timing["detect"], timing["lip-sync"]) == ("250.0", "1500.0")


async def test_a_response_says_what_encoded_and_decoded_the_video(
    client: httpx.AsyncClient, render: FakeRender
) -> None:
    still = await client.post("/", files=form())
    assert still.headers["x-avatar-encoder"] == "x264"
    assert "x-avatar-decoder" not in still.headers
    render.encoder, render.decoder = "nvenc", "cuda"
    video = await client.post("/", files=form())
    assert (video.headers["x-avatar-encoder"], video.headers["x-avatar-decoder"]) == ("nvenc", "cuda")


async def test_stand_ins_are_named_in_the_response_and_the_log(
    client: httpx.AsyncClient, render: FakeRender, caplog: pytest.LogCaptureFixture
) -> None:
    render.stand_ins = ("s3fd", "wav2lip")
    response = await client.post("/", files=form())
    assert response.headers["x-avatar-stand-ins"] == "s3fd, wav2lip"
    assert any("STAND-IN checkpoints: s3fd, wav2lip" in record.getMessage() for record in caplog.records)


async def test_real_weights_are_not_called_stand_ins(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form())
    assert "x-avatar-stand-ins" not in response.headers


async def test_a_missing_face_gets_the_sentence_of_the_original_service(
    client: httpx.AsyncClient, render: FakeRender, work: Path
) -> None:
    render.error = FaceNotFound()
    response = await client.post("/", files=form())
    sentence = "Face not detected! Ensure the video contains a face in all the frames."
    assert (response.status_code, response.json()) == (400, {"detail": sentence})
    assert leftovers(work) == []


async def test_an_input_error_that_the_job_finds_is_reported(client: httpx.AsyncClient, render: FakeRender) -> None:
    render.error = InvalidField("face_file", "not an image")
    response = await client.post("/", files=form())
    assert (response.status_code, response.json()) == (400, {"detail": "face_file: not an image"})


async def test_models_that_fail_during_a_job_result_in_a_503(
    client: httpx.AsyncClient, render: FakeRender, work: Path
) -> None:
    render.error = Unavailable("Triton did not answer in time", retry_after=11)
    response = await client.post("/", files=form())
    assert (response.status_code, response.json()) == (503, {"detail": "Triton did not answer in time"})
    assert response.headers["retry-after"] == "11"
    assert leftovers(work) == []


async def test_with_triton_down_a_form_gets_503_and_ping_still_responds(
    serve: Serve, render: FakeRender, work: Path
) -> None:
    async with serve(DownModels()) as client:
        response = await client.post("/", files=form())
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
        assert response.json() == {"detail": "Triton does not answer at 127.0.0.1:1"}
        assert render.requests == []
        assert leftovers(work) == []
        assert (await client.get("/ping")).json() == {"pong": "-"}
        assert (await client.get("/health/live")).status_code == 200


async def test_a_bad_form_is_rejected_even_with_triton_down(serve: Serve) -> None:
    async with serve(DownModels()) as client:
        response = await client.post("/", files=form(background="Pink"))
    assert response.status_code == 400


async def test_readiness_follows_triton(serve: Serve) -> None:
    async with serve() as client:
        response = await client.get("/health/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ready", "running": 0, "waiting": 0})
    async with serve(DownModels()) as client:
        response = await client.get("/health/ready")
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
        assert "Triton" in response.json()["detail"]


@pytest.mark.parametrize(
    "error", [RuntimeError("secret path"), InvalidInput("secret path"), AvatarError("secret path")]
)
async def test_a_defect_results_in_a_plain_500_with_its_traceback_in_the_log_only(
    client: httpx.AsyncClient, render: FakeRender, work: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    render.error = error
    response = await client.post("/", files=form(), headers={"X-Request-ID": "id-1"})
    assert (response.status_code, response.json()) == (500, {"detail": "internal error", "request_id": "id-1"})
    assert "secret path" in caplog.text
    assert "Traceback" in caplog.text
    assert leftovers(work) == []


async def test_a_job_without_a_result_is_a_defect(serve: Serve) -> None:
    async def job_without_result(request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Event]:
        yield Progress("detect", 1, 1)

    async with serve(job=job_without_result) as client:
        assert (await client.post("/", files=form())).status_code == 500


async def test_the_job_runs_to_its_end_after_its_result(serve: Serve, render: FakeRender) -> None:
    finished = []

    async def job_with_clean_up(request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Event]:
        async for event in render(request, models):
            yield event
        finished.append(True)

    async with serve(job=job_with_clean_up) as client:
        assert (await client.post("/", files=form())).status_code == 200
    assert finished == [True]


@pytest.mark.parametrize("path", ["/ping", "/", "/nowhere", "/health/ready"])
async def test_every_response_has_the_request_id_of_the_caller(serve: Serve, path: str) -> None:
    async with serve(DownModels()) as client:
        response = await client.get(path, headers={"X-Request-ID": "Caller.7_a-b"})
    assert response.headers["x-request-id"] == "Caller.7_a-b"


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 65, "a\tb", "<script>", "é"])
async def test_an_invalid_request_id_is_replaced(client: httpx.AsyncClient, request_id: str) -> None:
    response = await client.get("/ping", headers=[(b"X-Request-ID", request_id.encode())])
    assert response.headers["x-request-id"] != request_id
    assert len(response.headers["x-request-id"]) == 32


async def test_two_requests_without_ids_get_different_ids(client: httpx.AsyncClient) -> None:
    first, second = await client.get("/ping"), await client.get("/ping")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize("error", [None, FaceNotFound(), Unavailable("down"), RuntimeError("defect")])
async def test_a_browser_may_read_every_response(
    client: httpx.AsyncClient, render: FakeRender, error: Exception | None
) -> None:
    render.error = error
    response = await client.post("/", files=form(), headers=ORIGIN)
    assert response.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert response.headers["access-control-allow-credentials"] == "true"
    exposed = response.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "server-timing", "x-avatar-frames", "x-avatar-stand-ins", "retry-after"} <= set(exposed)
    assert {"x-avatar-encoder", "x-avatar-decoder"} <= set(exposed)


async def test_a_preflight_request_allows_any_header(client: httpx.AsyncClient) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-anything, authorization"}
    response = await client.options("/", headers=ORIGIN | preflight)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-headers"] == "x-anything, authorization"
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "x-request-id" in response.headers


async def test_each_request_leaves_one_access_line_with_its_stages(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    await client.post("/", files=form())
    await client.get("/a%20path%0Awith%20a%20second%20line")
    lines = [record for record in caplog.records if record.name == "gateway.access"]
    fields = [vars(line)["fields"] for line in lines]
    assert [(each["method"], each["status"]) for each in fields] == [("POST", 200), ("GET", 404)]
    assert lines[0].getMessage().startswith("POST / 200 ")
    assert "detect=0.250" in lines[0].getMessage()
    assert lines[1].getMessage().startswith("GET /a%20path%0Awith%20a%20second%20line 404 ")
    assert json.dumps(fields)
