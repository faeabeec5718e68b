"""Trials of a cluster: forms, jobs and live sessions while its servers are killed, stopped and started in turn.

AVATAR_CLUSTER_FORMS=40 makes shorter ones. They print their figures.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from avatar_client import AvatarClient, AvatarJobs, Unavailable
from tests.support.cluster import Cluster, client_of_envoy, running_cluster
from tests.support.envoy import Envoy
from tests.support.http_envoy import http_envoy
from tests.support.media import read_video, tone, write_wav

pytestmark = pytest.mark.slow

FORMS = int(os.environ.get("AVATAR_CLUSTER_FORMS") or 200)
SESSIONS = 20
CALLERS = 6  # forms and jobs at the same time
FRAMES = 15
PIECE = np.zeros(3200, np.int16)  # 0.2 s of speech
PIECES = 12  # of a session, which then ends
PAUSE = 0.5  # seconds between two pieces
SHARE = 1.3  # of the calls that one server may get, of three equal ones
TOLD_SECONDS = 10.0  # within which a session of a killed server ends; on a busy machine
SECONDS = 300.0  # after which a form has failed


@dataclass
class Figures:
    """What happened."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    sessions: Counter[str] = field(default_factory=Counter)
    refused: int = 0  # answers that ask the caller to repeat the form
    told: list[float] = field(default_factory=list)  # seconds from a kill to the error of a session
    events: list[str] = field(default_factory=list)

    def print(self, title: str) -> None:
        times = np.percentile(self.seconds, (50, 95, 100)) if self.seconds else (0, 0, 0)
        print(f"\n{title}: {len(self.seconds)} forms and jobs, {len(self.lost)} lost, {len(self.wrong)} wrong; seconds")
        print(f"  of one: p50 {times[0]:.1f}, p95 {times[1]:.1f}, max {times[2]:.1f}; events: {', '.join(self.events)}")
        print(*(f"  {words} x {count}\n" for words, count in Counter(self.lost + self.wrong).items()), end="")
        if self.sessions:
            told = [round(each, 2) for each in self.told]
            print(f"  live sessions: {dict(self.sessions)}; told after a kill: {told}")
        if self.refused:
            print(f"  refused with 503 and Retry-After, and repeated: {self.refused}")


@dataclass
class Callers:
    """Sends forms and jobs, and compares each video with the first one.

    Attributes:
        urls: where, in turn.
        repeats: whether a form that is refused with 503 and Retry-After is sent again.
    """

    urls: Sequence[str]
    face: Path
    speech: Path
    folder: Path
    repeats: bool = False
    expected: NDArray[np.uint8] | None = None

    def run(self, count: int, figures: Figures, other: Future[None] | None = None) -> None:
        """Send so many, and then more until `other` has ended."""
        numbers = itertools.count()

        def work() -> None:
            for number in numbers:
                if number >= count and (other is None or other.done()):
                    return
                self._one(number, figures)

        with ThreadPoolExecutor(CALLERS) as threads:
            for each in [threads.submit(work) for _ in range(CALLERS)]:
                each.result()

    def _one(self, number: int, figures: Figures) -> None:
        url = self.urls[number % len(self.urls)]
        video = self.folder / f"{threading.get_ident()}.mp4"
        begin = time.monotonic()
        try:
            if number % 4 > 1:
                self._job(url, video)
            else:
                self._form(url, video, figures)
        except Exception as error:
            figures.lost.append(f"{number}: {type(error).__name__}: {error}")
            return
        figures.seconds.append(time.monotonic() - begin)
        frames = read_video(video)
        if self.expected is None:
            self.expected = frames
        if frames.shape != self.expected.shape or np.abs(frames.astype(int) - self.expected).mean() > 1:
            figures.wrong.append(f"{number}: {frames.shape}")

    def _form(self, url: str, video: Path, figures: Figures) -> None:
        files = {
            "face_file": (self.face.name, self.face.read_bytes()),
            "audio_file": (self.speech.name, self.speech.read_bytes()),
        }
        data = {"avatarFileType": "png", "background": "From Input"}
        end = time.monotonic() + SECONDS
        while True:
            answer = httpx.post(f"{url}/", files=files, data=data, timeout=SECONDS, trust_env=False)
            refused = answer.status_code == 503 and "retry-after" in answer.headers
            if not (refused and self.repeats and time.monotonic() < end):
                break
            figures.refused += 1
            time.sleep(float(answer.headers["retry-after"]))
        assert answer.status_code == 200, answer.text[:500]
        video.write_bytes(answer.content)

    def _job(self, url: str, video: Path) -> None:
        jobs = AvatarJobs(url)
        job = jobs.wait(jobs.submit(self.face, self.speech).id, timeout=SECONDS)
        assert job.state == "succeeded", job
        jobs.result(job.id, video)


class Sessions:
    """Live sessions one after the other, several at the same time, until they are stopped."""

    def __init__(self, cluster: Cluster, face: Path, figures: Figures) -> None:
        self._face, self._figures = face, figures
        self.stop, self.kills = threading.Event(), dict[str, float]()
        self._clients = (
            AvatarClient(cluster.addresses, timeout=60, shared_memory=False),
            client_of_envoy(cluster.envoy, 60),
        )

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def run(self, number: int) -> None:
        while not self.stop.is_set():
            begin = time.monotonic()
            address = ["?"]
            try:
                self._session(self._clients[number % 2], address)
            except Unavailable as error:
                self._figures.sessions[f"ended by {error.code}"] += 1
                killed = self.kills.get(address[0], 0.0)
                if killed > begin:
                    self._figures.told.append(time.monotonic() - killed)
                self.stop.wait(0.2)
            except Exception as error:
                self._figures.wrong.append(f"live: {type(error).__name__}: {error}")

    def _session(self, client: AvatarClient, address: list[str]) -> None:
        with client.live(self._face, format="mouth") as session:
            address[0] = session._server.connection.address
            indexes = []
            for _ in range(PIECES):
                session.send(PIECE)
                end = time.monotonic() + PAUSE
                while time.monotonic() < end:
                    indexes += [frame.index for frame in session.frames(block=False)]
                    time.sleep(0.05)
                if self.stop.is_set():
                    break
            session.end()
            indexes += [frame.index for frame in session]
            if session.summary is None or indexes != list(range(session.summary.frames)):
                raise ValueError(f"frames {indexes}, {session.summary}")
        self._figures.sessions["whole"] += 1


def disturb(cluster: Cluster, sessions: Sessions, figures: Figures, stop: threading.Event) -> None:
    """Kill or stop one Triton after the other, and start it again."""
    if stop.wait(5.0):
        return
    for number in itertools.count():
        index, kill = number % 3, number % 2 == 0
        figures.events.append(f"{'kill' if kill else 'stop'} {index}")
        if kill:
            sessions.kills[cluster.addresses[index]] = time.monotonic()
            cluster.kill(index)
        else:
            cluster.tritons[index].stop()
        if stop.wait(2.0):
            return
        cluster.start_again(index)
        if stop.wait(4.0):
            return


def calls_of(cluster: Cluster) -> Counter[str]:
    """Return the calls of both gateways by server."""
    calls: Counter[str] = Counter()
    for gateway in cluster.gateways:
        with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "avatar_triton_calls_total":
                    calls[sample.labels["server"]] += int(sample.value)
    return calls


@pytest.fixture
def cluster(tiny_repository: Path, tmp_path: Path, database_url: str) -> Iterator[Cluster]:
    with running_cluster(tiny_repository, tmp_path, database_url) as running:
        yield running


def wait_until_ready(cluster: Cluster) -> None:
    for gateway in cluster.gateways:
        end = time.monotonic() + SECONDS
        while True:
            answer = httpx.get(f"{gateway.url}/health/ready", trust_env=False, timeout=60)
            if answer.status_code == 200 and all(each["healthy"] for each in answer.json().get("triton", [])):
                break
            assert time.monotonic() < end, answer.text
            time.sleep(0.2)


def test_no_form_is_lost_while_one_triton_after_the_other_is(cluster: Cluster, samples: Path, tmp_path: Path) -> None:
    speech = write_wav(tmp_path / "speech.wav", tone(FRAMES / 25))
    callers = Callers([each.url for each in cluster.gateways], samples / "portrait.png", speech, tmp_path)
    wait_until_ready(cluster)
    calm, disturbed = Figures(), Figures()

    callers.run(4, calm)  # each gateway and the workers have called every server
    before = calls_of(cluster)
    callers.run(max(12, FORMS // 5), calm)
    calls = calls_of(cluster) - before
    largest = max(calls.values()) / (sum(calls.values()) / len(cluster.tritons))
    calm.print(
        f"calm (calls of the gateways by server {sorted(calls.values())}, the largest {largest:.2f} of its share)"
    )

    stop = threading.Event()
    with ExitStack() as stack:
        sessions = Sessions(cluster, samples / "portrait.png", disturbed)
        stack.callback(sessions.close)
        threads = stack.enter_context(ThreadPoolExecutor(SESSIONS + 1))
        stack.callback(sessions.stop.set)
        stack.callback(stop.set)
        talking = [threads.submit(sessions.run, number) for number in range(SESSIONS)]
        disturbing = threads.submit(disturb, cluster, sessions, disturbed, stop)
        callers.run(FORMS, disturbed)
        stop.set()
        disturbing.result()
        sessions.stop.set()
        for each in talking:
            each.result()
    disturbed.print("disturbed")

    assert calm.lost + calm.wrong == []
    assert disturbed.lost + disturbed.wrong == [], cluster.logs()
    assert len(disturbed.seconds) == FORMS
    assert disturbed.sessions["whole"] > 0
    assert max(disturbed.told, default=0.0) < TOLD_SECONDS
    assert largest <= SHARE


def roll(cluster: Cluster, envoy: Envoy, figures: Figures) -> None:
    """Stop a gateway and a Triton by SIGTERM and start them again, one after the other, until each has had its turn."""
    for number in range(max(len(cluster.tritons), FORMS // 20)):
        gateway, triton = number % len(cluster.gateways), number % len(cluster.tritons)
        begin = time.monotonic()
        cluster.gateways[gateway].stop()
        figures.events.append(f"gateway {gateway} ended after {time.monotonic() - begin:.1f} s")
        cluster.gateways[gateway].start()
        wait_until_ready(cluster)
        envoy.wait_for(lambda: envoy.healthy("gateways") == len(cluster.gateways))
        cluster.start_again(triton)
        figures.events.append(f"Triton {triton}")
        wait_until_ready(cluster)


def test_no_form_is_lost_in_a_rolling_restart_of_gateways_and_tritons(
    tiny_repository: Path, samples: Path, tmp_path: Path, database_url: str
) -> None:
    speech = write_wav(tmp_path / "speech.wav", tone(FRAMES / 25))
    figures = Figures()
    # with one job at a time some forms wait in the queue when a gateway closes, and are refused
    settings = {"AVATAR_DRAIN_SECONDS": "5", "AVATAR_SHUTDOWN_GRACE": "90", "AVATAR_MAX_JOBS": "1"}
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tiny_repository, tmp_path, database_url, **settings))
        wait_until_ready(cluster)
        folder = tmp_path / "http"
        folder.mkdir()
        envoy = stack.enter_context(http_envoy(folder, [each.address for each in cluster.gateways]))
        url = f"http://{envoy.address}"
        callers = Callers([url], samples / "portrait.png", speech, tmp_path, repeats=True)
        threads = stack.enter_context(ThreadPoolExecutor(1))
        rolling = threads.submit(roll, cluster, envoy, figures)
        callers.run(FORMS, figures, rolling)
        figures.print("rolling restart")
        print({name: count for name, count in envoy.stats("^cluster.gateways.upstream_rq_(retry|5xx|2xx)$").items()})
        rolling.result()
        assert figures.lost + figures.wrong == [], cluster.logs()
    assert len(figures.seconds) >= FORMS
