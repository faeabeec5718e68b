"""What the gateway counts, for Prometheus: `GET /metrics`.

Counted is how much and how long; never who asked, and never what is in a form. Labels come from small fixed sets
(routes, statuses, error classes, stages), so no caller can make the number of series grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from starlette.types import Scope

__all__ = ["CONTENT_TYPE", "METRICS", "Metric", "Metrics"]

OTHER = "other"  # the route of a path that is none of ours, the method that HTTP does not know
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# From a ping to an hour of speech on two cores.
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True)
class Metric:
    """One row of the documentation: name as Prometheus sees it, kind, labels, meaning."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    about: str


REQUESTS = Metric(
    "avatar_requests_total", "counter", ("method", "route", "status"), "Requests answered, by route and status."
)
REQUEST_SECONDS = Metric(
    "avatar_request_seconds", "histogram", ("route",), "Seconds from a request's first byte to its answer's last."
)
ERRORS = Metric("avatar_errors_total", "counter", ("kind",), "Requests that ended in an error, by its class.")
RUNNING = Metric("avatar_jobs_running", "gauge", (), "Jobs that have their turn now.")
WAITING = Metric("avatar_jobs_waiting", "gauge", (), "Forms that are read and wait for their turn.")
REFUSED = Metric("avatar_jobs_refused_total", "counter", (), "Requests sent away because too many were there.")
STAGE_SECONDS = Metric(
    "avatar_stage_seconds", "histogram", ("stage",), "Seconds of each stage of a finished job, as in Server-Timing."
)
FRAMES = Metric("avatar_frames_total", "counter", (), "Pictures in the videos that were made.")
UPLOADED = Metric("avatar_upload_bytes_total", "counter", (), "Bytes of request bodies that came in.")
REMEMBERED = Metric(
    "avatar_cache_lookups_total", "counter", ("result",), "Look-ups of a remembered avatar: `hit` or `miss`."
)

# The README and the dashboard are held to it. `process_*` (CPU, memory, open files) come beside them.
METRICS = (REQUESTS, REQUEST_SECONDS, ERRORS, RUNNING, WAITING, REFUSED, STAGE_SECONDS, FRAMES, UPLOADED, REMEMBERED)

_BUSY = "Busy"  # the class of `gateway.problems` that sends away; that module imports this one


class Metrics:
    """The metrics of one application; each has its own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = _counter(REQUESTS, registry)
        self._seconds = _histogram(REQUEST_SECONDS, registry)
        self._errors = _counter(ERRORS, registry)
        self._running = Gauge(RUNNING.name, RUNNING.about, registry=registry)
        self._waiting = Gauge(WAITING.name, WAITING.about, registry=registry)
        self._refused = _counter(REFUSED, registry)
        self._stages = _histogram(STAGE_SECONDS, registry)
        self._frames = _counter(FRAMES, registry)
        self._uploaded = _counter(UPLOADED, registry)
        self._remembered = _Remembered()
        registry.register(self._remembered)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Ask for the jobs that run and that wait whenever the metrics are read."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def watch_cache(self, hits: Callable[[], int], misses: Callable[[], int]) -> None:
        """Ask for the look-ups of remembered avatars whenever the metrics are read; without it there are none."""
        self._remembered.asked = {"hit": hits, "miss": misses}

    def received(self, size: int) -> None:
        """So many bytes of a body came in."""
        self._uploaded.inc(size)

    def answered(self, scope: Scope, status: int | None, seconds: float) -> None:
        """A request is over; `status` is None where no answer was begun."""
        route, method = getattr(scope.get("route"), "path", OTHER), scope["method"]
        self._requests.labels(method if method in METHODS else OTHER, route, str(status or "none")).inc()
        self._seconds.labels(route).observe(seconds)

    def failed(self, kind: str) -> None:
        """A request ended in an error of this class."""
        self._errors.labels(kind).inc()
        if kind == _BUSY:
            self._refused.inc()

    def made(self, frames: int, stages: Mapping[str, float]) -> None:
        """A video was made: its pictures, and the seconds of each stage."""
        self._frames.inc(frames)
        for stage, seconds in stages.items():
            self._stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)


class _Remembered(Collector):
    """What the cache counts, asked for whenever the metrics are read."""

    def __init__(self) -> None:
        self.asked: Mapping[str, Callable[[], int]] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As `Collector`."""
        family = CounterMetricFamily(REMEMBERED.name, REMEMBERED.about, labels=REMEMBERED.labels)
        for result, count in self.asked.items():
            family.add_metric((result,), count())
        yield family


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.about, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.about, metric.labels, registry=registry, buckets=SECONDS)
