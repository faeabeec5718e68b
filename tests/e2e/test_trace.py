"""One trace goes through everything: HTTP, the queue, the worker, every stage, every call of Triton."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from avatar import tracing
from avatar.inference.grpc_client import GrpcInferenceClient
from embedded.postgres import Postgres
from embedded.server import Triton
from tests.conftest import job_env
from tests.support.gateway_process import Gateway, gateway_process
from tests.support.media import tone, write_wav
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.postgres import fresh_database
from tests.support.triton_streams import Responses, make_request, stub
from tests.support.worker_process import worker_process

FRAMES = 10
FORM = {"avatarFileType": "png", "background": "From Input"}
KNOWN = ("e5" * 16, "f6" * 16, "a7" * 16)  # the traces of the tests of Triton
CALLED = {"infer mel_spectrogram", "infer detect_faces", "infer wav2lip"}


@dataclass(frozen=True)
class Service:
    receiver: OtlpReceiver
    gateway: Gateway
    worker_log: Path


@dataclass(frozen=True)
class Trace:
    """A trace of a caller: what it sends, and what is received of it."""

    receiver: OtlpReceiver
    id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.id}-{'1' * 16}-01", "X-Request-ID": f"request-{self.id[:8]}"}

    def until(self, *names: str) -> list[ReceivedSpan]:
        """Return the spans of the trace as soon as those with these names have arrived."""
        spans = self.receiver.wait(lambda spans: {s.name for s in spans if s.trace == self.id} >= set(names))
        return [span for span in spans if span.trace == self.id]


@pytest.fixture(scope="module")
def service(
    triton: Triton,
    postgres_server: Postgres,
    migrated_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """A gateway and a worker in processes of their own, whose traces are received."""
    folder = tmp_path_factory.mktemp("traced")
    with ExitStack() as stack:
        receiver = stack.enter_context(otlp_receiver())
        settings = {
            "AVATAR_DATABASE_URL": stack.enter_context(fresh_database(postgres_server, migrated_database)),
            "AVATAR_STORE": str(folder / "store"),
            "AVATAR_OTLP_ENDPOINT": receiver.endpoint,
            "AVATAR_TRITON_URL": triton.grpc_address,
            "AVATAR_TRITON_TOKEN": triton.token,
            "AVATAR_LOG_FORMAT": "json",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        log = stack.enter_context(worker_process(folder / "worker", settings | {"AVATAR_WORKER_JOBS": "1"}))
        own = {name: value for name, value in settings.items() if name != "AVATAR_TRITON_TOKEN"}
        gateway = stack.enter_context(
            gateway_process(folder, triton.grpc_address, token=triton.token, AVATAR_WORKERS="0", **own)
        )
        gateway.wait_for_jobs()
        yield Service(receiver, gateway, log)


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.gateway.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def files(samples: Path, tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    speech = write_wav(tmp_path / "speech.wav", tone(FRAMES / 25))
    return {
        "face_file": ("face.png", (samples / "face.png").read_bytes()),
        "audio_file": ("speech.wav", speech.read_bytes()),
    }


def test_the_trace_of_a_job_holds_its_request_its_queue_its_worker_its_stages_and_its_calls(
    service: Service, client: httpx.Client, files: dict[str, tuple[str, bytes]]
) -> None:
    trace = Trace(service.receiver, "a1" * 16)
    answer = client.post("/v1/jobs", files=files, data=FORM, headers=trace.headers)
    assert answer.status_code == 202, answer.text
    job = _ended(client, answer.json()["id"])
    spans = trace.until("POST /v1/jobs", "attempt")
    one = _by_name(spans)
    assert {(one[name].service, one[name].kind) for name in ("POST /v1/jobs", "upload", "submit")} == {
        ("talking-avatar-gateway", "server"),
        ("talking-avatar-gateway", "internal"),
        ("talking-avatar-gateway", "producer"),
    }
    assert one["POST /v1/jobs"].parent == "1" * 16
    assert one["POST /v1/jobs"].attributes["http.response.status_code"] == 202
    _check_below(one, "POST /v1/jobs", "upload", "submit")
    _check_below(one, "submit", "queue", "attempt")
    stages = set(job["result"]["seconds"])
    assert {"speech", "decode", "detection", "generation", "paste", "encode"} <= stages
    _check_below(one, "attempt", "fetch", *stages, "store")
    assert {span.service for span in spans if span.kind != "server"} - {"talking-avatar-gateway"} == {
        "talking-avatar-worker"
    }
    assert one["queue"].start == pytest.approx(one["submit"].start, abs=30)
    assert one["queue"].end <= one["attempt"].start + 1e-3
    assert one["attempt"].attributes["avatar.outcome"] == "succeeded"
    assert one["attempt"].attributes["avatar.job"] == job["id"] == one["submit"].attributes["avatar.job"]
    _check_calls(spans, trace)
    assert not [span for span in spans if span.is_error]
    _check_log(service.worker_log, "rendered", trace)


def test_the_trace_of_a_form_holds_its_upload_its_queue_its_stages_and_its_calls(
    service: Service, client: httpx.Client, files: dict[str, tuple[str, bytes]]
) -> None:
    trace = Trace(service.receiver, "b2" * 16)
    answer = client.post("/", files=files, data=FORM, headers=trace.headers)
    assert answer.status_code == 200, answer.text
    spans = trace.until("POST /")
    one = _by_name(spans)
    _check_below(one, "POST /", "upload", "queue", "speech", "decode", "detection", "generation", "paste", "encode")
    assert one["POST /"].attributes["http.route"] == "/"
    _check_calls(spans, trace)
    _check_log(service.gateway.log, "POST / 200", trace)


def test_a_request_that_fails_is_marked_and_its_caller_may_leave_the_trace_out(
    service: Service, client: httpx.Client
) -> None:
    trace, unsampled = Trace(service.receiver, "c3" * 16), Trace(service.receiver, "d4" * 16)
    headers = unsampled.headers | {"traceparent": f"00-{unsampled.id}-{'1' * 16}-00"}
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    client.get("/health/ready", headers=headers)
    assert client.post("/", data={"a": "b"}, headers=trace.headers).status_code == 400
    (span,) = [span for span in trace.until("POST /") if span.name == "POST /"]
    assert span.attributes["http.response.status_code"] == 400
    assert not span.is_error  # the caller's mistake
    assert not [each for each in service.receiver.spans if each.trace == unsampled.id]


@pytest.fixture(scope="module")
def traced_triton(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Triton, OtlpReceiver]]:
    """A Triton that sends its own traces, and where they arrive."""
    folder = tmp_path_factory.mktemp("traced-triton")
    with otlp_receiver() as receiver:
        settings = job_env(folder) | {"AVATAR_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with Triton(tiny_repository, env=settings) as triton:
            yield triton, receiver


@pytest.mark.slow
def test_a_stream_of_avatar_is_below_the_span_of_triton_and_above_its_stages(
    traced_triton: tuple[Triton, OtlpReceiver], samples: Path, tmp_path: Path
) -> None:
    triton, receiver = traced_triton
    trace = Trace(receiver, "e5" * 16)
    speech = write_wav(tmp_path / "speech.wav", tone(FRAMES / 25)).read_bytes()
    request = make_request("avatar", "request-1", face_file=(samples / "face.png").read_bytes(), audio_file=speech)
    responses, metadata = Responses(), (("traceparent", trace.headers["traceparent"]),)
    with stub(triton.grpc_address) as server:
        for response in server.ModelStreamInfer(iter([request]), metadata=metadata):
            responses.add(response)
    assert responses.summary, responses.error
    spans = trace.until("serve avatar", "InferRequest")
    (job,) = [span for span in spans if span.name == "serve avatar"]
    (above,) = [span for span in spans if span.id == job.parent]
    assert above.name == "avatar"  # Triton's own
    one = _by_name([span for span in spans if span.kind != "server"])
    assert {one[name].parent for name in ("queue", "speech", "detection", "generation")} == {job.id}
    assert {span.attributes["avatar.request_id"] for span in spans if span.kind == "client"} == {"request-1"}
    assert {span.name for span in spans if span.kind == "client"} == CALLED
    line = f"avatar [request-1 {trace.id}] 200 {FRAMES} frames"
    assert line in triton.log_path.read_text()


@pytest.mark.slow
def test_a_session_may_name_its_trace_by_a_parameter(traced_triton: tuple[Triton, OtlpReceiver], samples: Path) -> None:
    triton, receiver = traced_triton
    trace, responses = Trace(receiver, "f6" * 16), Responses()
    face = (samples / "portrait.png").read_bytes()  # not the one of `avatar`: its box is in the cache
    request = make_request("live", "request-2", face_file=face, audio=tone(0.6))
    request.parameters["sequence_id"].int64_param = 4321
    request.parameters["sequence_start"].bool_param = request.parameters["sequence_end"].bool_param = True
    request.parameters["traceparent"].string_param = trace.headers["traceparent"]
    with stub(triton.grpc_address) as server:
        for response in server.ModelStreamInfer(iter([request])):
            responses.add(response)
    assert responses.frames, responses.error
    spans = {span.id: span for span in trace.until("serve live")}
    (session,) = [span for span in spans.values() if span.name == "serve live"]
    stages = {span.name for span in spans.values() if span.parent == session.id}
    assert {"decode", "detection", "generation"} <= stages
    (detection,) = [span for span in spans.values() if span.name == "infer detect_faces"]
    assert spans[detection.parent].name == "detection"
    generated = [span for span in spans.values() if span.name == "infer wav2lip"]
    assert generated and all(spans[span.parent].name == "generation" for span in generated)


@pytest.mark.slow
async def test_triton_adds_its_own_spans_and_the_id_of_the_request_to_a_call_that_is_traced(
    traced_triton: tuple[Triton, OtlpReceiver],
) -> None:
    triton, receiver = traced_triton
    trace, frames = Trace(receiver, "a7" * 16), np.zeros((1, 64, 64, 3), np.uint8)
    client = GrpcInferenceClient(triton.grpc_address, shared_memory=False)
    token = tracing.request_id.set("request-3")
    try:
        with tracing.exporting(receiver.endpoint, "caller"):
            await client.detect_faces(frames)  # of no trace
            with tracing.span("caller", kind="server", parent=trace.headers["traceparent"]):
                await client.detect_faces(frames)
    finally:
        tracing.request_id.reset(token)
        await client.close()
    spans = {span.id: span for span in trace.until("infer detect_faces", "InferRequest")}
    (root,) = [span for span in spans.values() if span.name == "InferRequest"]
    assert (spans[root.parent].service, spans[root.parent].name) == ("caller", "infer detect_faces")
    ids = {span.name: span.attributes.get("triton.request_id") for span in spans.values()}
    assert {name: ids[name] for name in ("detect_faces", "s3fd", "face_nms")} == dict.fromkeys(
        ("detect_faces", "s3fd", "face_nms"), "request-3"
    )
    assert len([span for span in receiver.spans if span.name == "s3fd" and span.trace not in KNOWN]) == 0


def _ended(client: httpx.Client, identity: str) -> dict[str, Any]:
    for _ in range(600):
        job: dict[str, Any] = client.get(f"/v1/jobs/{identity}").json()
        if job["state"] not in ("queued", "running"):
            assert job["state"] == "succeeded", job
            return job
        time.sleep(0.1)
    raise AssertionError("the job did not end within a minute")


def _by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    """Return the spans by name; of calls of Triton there are several of one name."""
    names = [span.name for span in spans if span.kind != "client"]
    assert len(set(names)) == len(names), names
    return {span.name: span for span in spans}


def _check_below(spans: dict[str, ReceivedSpan], parent: str, *names: str) -> None:
    """Check that spans with these names are directly below the one with the name `parent`."""
    assert set(names) <= set(spans)
    assert {name: spans[name].parent for name in names} == dict.fromkeys(names, spans[parent].id)


def _check_calls(spans: list[ReceivedSpan], trace: Trace) -> None:
    """Check that every call of Triton is there, below the stage that made it."""
    stages = {span.id: span.name for span in spans}
    calls = [span for span in spans if span.kind == "client"]
    assert {span.name for span in calls} == CALLED
    made_in = {"infer mel_spectrogram": "speech", "infer detect_faces": "detection", "infer wav2lip": "generation"}
    for call in calls:
        assert stages[call.parent] == made_in[call.name]
        assert call.attributes["server.address"] == "127.0.0.1"
        assert call.attributes["avatar.request_id"] == trace.headers["X-Request-ID"]
        assert isinstance(call.attributes["avatar.bytes"], int) and "avatar.shared_memory" in call.attributes
    assert sum(int(str(call.attributes["avatar.batch"])) for call in calls if call.name == "infer wav2lip") == FRAMES


def _check_log(log: Path, message: str, trace: Trace) -> None:
    """Check that a line about the request has its id and that of the trace."""
    lines = [line for line in log.read_text().splitlines() if message in line and trace.id in line]
    assert lines and all(f'"request_id": "{trace.headers["X-Request-ID"]}"' in line for line in lines)
    assert all(f'"trace_id": "{trace.id}"' in line for line in lines)
