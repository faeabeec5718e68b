"""The metrics are those of the table and contain nothing about callers."""

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from avatar.errors import FaceNotFound
from avatar.testing import FakeInference
from gateway.app import create_app
from gateway.metrics import METRICS
from gateway.settings import Settings
from tests.support.gateway_fakes import DownModels, FakeRender, Serve, eventually, form, service_of
from tests.support.media import find_square, tone, write_still, write_wav

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(client: httpx.AsyncClient) -> Samples:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


async def test_the_table_names_every_exported_metric_with_its_kind_and_labels(client: httpx.AsyncClient) -> None:
    await client.post("/", files=form())
    await client.post("/", files=form(background=None))
    text = (await client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ours = {name for name in families if name.startswith("avatar_") and not name.endswith("_created")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.description)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= set(families)


async def test_a_finished_form_is_counted_with_its_stages_frames_and_bytes(client: httpx.AsyncClient) -> None:
    response = await client.post("/", files=form())
    assert response.status_code == 200
    samples = await read(client)
    assert value(samples, "avatar_requests_total", method="POST", route="/", status="200") == 1
    assert value(samples, "avatar_request_seconds_count", route="/") == 1
    assert value(samples, "avatar_frames_total") == 3
    assert value(samples, "avatar_upload_bytes_total") == int(response.request.headers["content-length"])
    assert value(samples, "avatar_stage_seconds_sum", stage="detect") == 0.25
    assert value(samples, "avatar_stage_seconds_sum", stage="lip sync") == 1.5
    stages = {dict(labels)["stage"] for name, labels in samples if name == "avatar_stage_seconds_count"}
    assert stages == {"upload", "queue", "detect", "lip sync"}


async def test_every_error_is_counted_under_its_class(serve: Serve, render: FakeRender) -> None:
    async with serve(max_upload_bytes=1000) as client:
        await client.post("/", files=form(background="Pink"))
        await client.post("/", files=form(face_file=("face.png", b"x" * 2000)))
        await client.post("/", content=b"no form")
        render.error = FaceNotFound()
        await client.post("/", files=form())
        render.error = RuntimeError("a defect")
        await client.post("/", files=form())
        samples = await read(client)
    kinds = {dict(labels)["kind"]: count for (name, labels), count in samples.items() if name == "avatar_errors_total"}
    assert kinds == {"InvalidField": 1, "TooLarge": 1, "MalformedForm": 1, "FaceNotFound": 1, "InternalError": 1}
    assert value(samples, "avatar_requests_total", method="POST", route="/", status="500") == 1
    assert value(samples, "avatar_requests_total", method="POST", route="/", status="413") == 1
    assert value(samples, "avatar_frames_total") == 0


async def test_models_that_are_down_are_counted(serve: Serve) -> None:
    async with serve(models=DownModels()) as client:
        assert (await client.post("/", files=form())).status_code == 503
        assert value(await read(client), "avatar_errors_total", kind="Unavailable") == 1


async def test_running_queued_and_rejected_jobs_are_counted(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()
    async with serve(max_jobs=1, max_queued=1, max_jobs_per_client=0) as client:
        posts = [asyncio.create_task(client.post("/", files=form())) for _ in range(2)]
        await render.reached(1)
        jobs = service_of(client).jobs
        await eventually(lambda: jobs.queued == 1)
        assert (await client.post("/", files=form())).status_code == 503
        samples = await read(client)
        names = ("avatar_jobs_running", "avatar_jobs_waiting")
        assert [value(samples, name) for name in names] == [1, 1]
        assert value(samples, "avatar_jobs_rejected_total", reason="queue") == 1
        assert value(samples, "avatar_jobs_rejected_total", reason="client") == 0
        assert value(samples, "avatar_jobs_refused_total") == 1  # the old name of the metric above
        assert value(samples, "avatar_errors_total", kind="Busy") == 1
        render.gate.set()
        await asyncio.gather(*posts)
        samples = await read(client)
        assert [value(samples, name) for name in names] == [0, 0]


async def test_lookups_in_the_avatar_cache_are_counted(serve: Serve, tmp_path: Path) -> None:
    def lookups(samples: Samples) -> list[float | None]:
        return [samples.get(("avatar_cache_lookups_total", (("result", result),))) for result in ("hit", "miss")]

    face, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "speech.wav", tone(0.4))
    parts = form(face_file=("face.png", face.read_bytes()), audio_file=("speech.wav", speech.read_bytes()))
    models = FakeInference(find_square, export="one")
    async with serve(models, job=None, cache_dir=tmp_path / "cache") as client:
        assert lookups(await read(client)) == [0, 0]  # exported from the start, so that a rate counts the first lookup
        for counted in ([0, 1], [1, 1]):
            assert (await client.post("/", files=parts)).status_code == 200
            assert lookups(await read(client)) == counted
    async with serve(models, job=None, cache_mib=0) as client:
        assert (await client.post("/", files=parts)).status_code == 200
        assert lookups(await read(client)) == [None, None]


async def test_callers_cannot_add_series(client: httpx.AsyncClient) -> None:
    for number in range(20):
        await client.get(f"/wp-admin/{number}.php")
        await client.request(f"BREW{number}", "/")
    routes = {dict(labels)["route"] for name, labels in await read(client) if name == "avatar_requests_total"}
    methods = {dict(labels)["method"] for name, labels in await read(client) if name == "avatar_requests_total"}
    assert routes <= {"/", "/metrics", "other"}
    assert methods == {"GET", "other"}


async def test_the_metrics_contain_nothing_of_a_form(client: httpx.AsyncClient) -> None:
    await client.post("/?secret=query", files=form(face_file=("secret-name.png", b"x")), headers={"x-request-id": "me"})
    text = (await client.get("/metrics")).text
    assert "secret" not in text
    assert '"me"' not in text


async def test_each_application_has_its_own_counters(client: httpx.AsyncClient) -> None:
    await client.get("/ping")
    other = create_app(Settings())
    assert b'route="/ping"' not in other.state.metrics.text()


@pytest.mark.parametrize("path", ["/ping", "/health/live", "/health/ready"])
async def test_the_other_routes_are_counted_by_their_path(client: httpx.AsyncClient, path: str) -> None:
    await client.get(path)
    assert value(await read(client), "avatar_requests_total", method="GET", route=path, status="200") == 1
