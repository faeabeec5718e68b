"""The metrics of the models `avatar` and `live`, on the metrics port of a live server."""

from __future__ import annotations

import re
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from avatar.serving.metrics import FRAMES, JOBS, LATE_FRAMES, MODEL_METRICS, REFUSALS, SESSIONS, STAGE_SECONDS
from embedded.server import Triton
from tests.conftest import job_env
from tests.support.media import tone, write_wav
from tests.support.triton_streams import LiveConnection, make_request, send_request, stub

SECONDS = 20.0
LABELS = re.compile(r'(\w+)="([^"]*)"')
Samples = dict[tuple[str, str], float]
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)


def read(triton: Triton) -> Samples:
    """Return the samples by the name and by the text of the labels, without `process` and the buckets."""
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics") as answer:
        text = answer.read().decode()
    samples: Samples = {}
    for name, labels, value in SAMPLE.findall(text):
        known = {label: each for label, each in LABELS.findall(labels) if label != "process"}
        if name.startswith("avatar_") and "le" not in known:
            key = name, ",".join(known[label] for label in sorted(known))
            samples[key] = samples.get(key, 0) + float(value)
    return samples


def until(triton: Triton, holds: Callable[[Samples], bool]) -> Samples:
    """Return the samples as soon as this holds for them: a model hands over its sums every second."""
    end = time.monotonic() + SECONDS
    while not holds(samples := read(triton)):
        assert time.monotonic() < end, samples
        time.sleep(0.05)
    return samples


def test_every_metric_with_known_labels_is_there_from_the_start(triton: Triton) -> None:
    samples = read(triton)
    for metric in MODEL_METRICS:
        for value in metric.values:
            labels = [f"{model.name},{value}" for model in metric.models] if "model" in metric.labels else [value]
            assert {(metric.name, each) for each in labels} <= set(samples)
    assert {(metric.name, "") for metric in (SESSIONS, FRAMES, LATE_FRAMES)} <= set(samples)


def test_a_job_is_counted_with_its_stages_and_a_refused_one_with_its_reason(
    triton: Triton, samples: Path, tmp_path: Path
) -> None:
    face = (samples / "face.png").read_bytes()
    speech = write_wav(tmp_path / "speech.wav", tone(0.2)).read_bytes()
    before = read(triton)
    with stub(triton.grpc_address) as server:
        assert send_request(server, make_request("avatar", face_file=face, audio_file=speech)).summary
        assert send_request(server, make_request("avatar", face_file=b"none", audio_file=speech)).error
    stages = [(f"{STAGE_SECONDS.name}_count", stage) for stage in ("speech", "decode", "generation", "paste", "encode")]
    counted = [(JOBS.name, "succeeded"), (JOBS.name, "rejected"), (REFUSALS.name, "avatar,invalid"), *stages]
    # at least: what the test before has done may be handed over now
    after = until(triton, lambda now: all(now.get(key, 0) >= before.get(key, 0) + 1 for key in counted))
    total = (f"{STAGE_SECONDS.name}_sum", "encode")
    assert after[total] > before.get(total, 0)


def test_a_session_is_counted_while_it_runs_and_so_are_its_frames(triton: Triton, samples: Path) -> None:
    sessions, frames, late = ((metric.name, "") for metric in (SESSIONS, FRAMES, LATE_FRAMES))
    before = until(triton, lambda now: now[sessions] == 0)  # those of earlier tests have ended
    with stub(triton.grpc_address) as server:
        connection = LiveConnection(server, 77_001)
        connection.send(start=True, face_file=(samples / "face.png").read_bytes(), audio=tone(0.4))
        until(triton, lambda now: now[sessions] == 1)
        connection.send(audio=tone(0.4), end=True)
        responses = connection.receive(2)
        connection.close()
    assert responses.frames, responses.error
    made = len(responses.frames)
    after = until(triton, lambda now: now[sessions] == 0 and now[frames] >= before[frames] + made)
    assert after[late] - before[late] <= after[frames] - before[frames]


@pytest.mark.slow
def test_the_series_of_a_model_that_is_loaded_again_replace_those_of_the_process_before(
    tiny_repository: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository)

    def processes(triton: Triton) -> set[str]:
        with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics") as answer:
            return set(re.findall(r'^avatar_model_jobs_total{.*process="(\d+)"', answer.read().decode(), re.M))

    with Triton(repository, poll=1, env=job_env(tmp_path)) as triton:
        (first,) = processes(triton)
        with (repository / "avatar" / "1" / "model.py").open("a") as code:
            code.write("# another version of it\n")
        end = time.monotonic() + 3 * SECONDS
        while len(now := processes(triton)) != 1 or now == {first}:
            assert time.monotonic() < end, now
            time.sleep(0.1)
        speech = write_wav(tmp_path / "speech.wav", tone(0.2)).read_bytes()
        with stub(triton.grpc_address) as server:
            assert "400" in send_request(server, make_request("avatar", face_file=b"none", audio_file=speech)).error
        until(triton, lambda samples: samples[JOBS.name, "rejected"] == 1)
        triton.wait(0.1)  # raises ServerDied if the server has died
