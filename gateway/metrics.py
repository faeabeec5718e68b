"""Prometheus metrics of the gateway, served at `GET /metrics`.

The metrics hold counts and durations only, never a caller's identity or the content of a form. Labels come from small
fixed sets (routes, statuses, error classes, stages), so callers cannot increase the number of series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector
from starlette.types import Scope

from avatar.errors import Busy
from jobs.metric import Metric
from jobs.quotas import QuotaExceeded
from jobs.records import JobClass, JobState
from jobs.render_metrics import FRAMES, SECONDS, STAGE_SECONDS, RenderMetrics
from jobs.repository.totals import QueueState, Total
from jobs.triton_metrics import TRITON_METRICS, TritonMetrics
from jobs.worker_metrics import WORKER_METRICS, WorkerMetrics

from .connection_pool import REASONS
from .errors import TooManyJobs
from .live_metrics import LIVE_METRICS, LiveMetrics

__all__ = ["CONTENT_TYPE", "METRICS", "Metric", "Metrics"]

OTHER = "other"  # label of an unknown path, and of a method that is not an HTTP method
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# The label of a rejected request, by the class of its error.
_REJECTIONS = {Busy.__name__: "queue", TooManyJobs.__name__: "client", QuotaExceeded.__name__: "key"}

REQUESTS = Metric(
    "avatar_requests_total",
    "counter",
    ("method", "route", "status"),
    "Requests, by method, route and status of the response.",
)
REQUEST_SECONDS = Metric(
    "avatar_request_seconds",
    "histogram",
    ("route",),
    "Seconds from the first byte of a request to the last byte of its response.",
)
ERRORS = Metric("avatar_errors_total", "counter", ("kind",), "Requests that ended in an error, by class of the error.")
RUNNING = Metric("avatar_jobs_running", "gauge", (), "Jobs that are running.")
WAITING = Metric("avatar_jobs_waiting", "gauge", (), "Requests that have been uploaded and wait in the queue.")
REJECTED = Metric(
    "avatar_jobs_rejected_total",
    "counter",
    ("reason",),
    "Rejected requests; `reason` is `queue` (the queue was full), `client` (one client had its share of the places) or "
    "`key` (the owner of an API key had as much as it may have).",
)
# The old name of REJECTED, counted for one more release.
REFUSED = Metric("avatar_jobs_refused_total", "counter", (), f"Deprecated: the old name of {REJECTED.name}.")
UPLOAD_BYTES = Metric("avatar_upload_bytes_total", "counter", (), "Bytes of request bodies received.")
CACHE_LOOKUPS = Metric(
    "avatar_cache_lookups_total", "counter", ("result",), "Lookups in the avatar cache; `result` is `hit` or `miss`."
)
CONNECTIONS = Metric("avatar_connections", "gauge", (), "Open connections.")
CLOSED_CONNECTIONS = Metric(
    "avatar_connections_closed_total",
    "counter",
    ("reason",),
    "Connections that the gateway ended. `reason`: `head` (no whole request came in time), `limit` and `client_limit` "
    "(too many connections, in all or from one address), `slow_upload`, `slow_download` (slower than the least rate).",
)

QUEUED_JOBS = Metric(
    "avatar_queue_jobs",
    "gauge",
    ("state", "priority"),
    "Jobs of `/v1/jobs` that are `queued` or `running` on any machine, by priority.",
)
OLDEST_QUEUED = Metric(
    "avatar_queue_oldest_seconds", "gauge", ("priority",), "Seconds since the oldest queued job was handed over, or 0."
)
ATTEMPTS = Metric("avatar_queue_attempts_total", "counter", (), "Starts of jobs, by workers on any machine.")
LEASE_LOSSES = Metric(
    "avatar_queue_lease_losses_total", "counter", (), "Running jobs whose worker was lost, on any machine."
)
WEBHOOK_FAILURES = Metric(
    "avatar_webhook_failures_total", "counter", (), "Requests to webhooks that failed; most are tried again."
)
_TOTALS = {ATTEMPTS: Total.ATTEMPTS, LEASE_LOSSES: Total.LEASE_LOSSES, WEBHOOK_FAILURES: Total.WEBHOOK_FAILURES}
QUEUE_METRICS = (QUEUED_JOBS, OLDEST_QUEUED, *_TOTALS)

# Tests compare the documentation and the dashboard with this table. `process_*` is exported too.
METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    ERRORS,
    RUNNING,
    WAITING,
    REJECTED,
    REFUSED,
    STAGE_SECONDS,
    FRAMES,
    UPLOAD_BYTES,
    CACHE_LOOKUPS,
    CONNECTIONS,
    CLOSED_CONNECTIONS,
    *QUEUE_METRICS,
    *WORKER_METRICS,
    *TRITON_METRICS,
    *LIVE_METRICS,
)


class Metrics:
    """The metrics of one application, in a registry of their own.

    Attributes:
        worker: counts the jobs of the queue that this process runs.
        triton: shows the servers that this process calls.
        live: counts the live sessions that this process carries.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = REQUESTS.counter(registry)
        self._seconds = REQUEST_SECONDS.histogram(registry, SECONDS)
        self._errors = ERRORS.counter(registry)
        self._running = RUNNING.gauge(registry)
        self._waiting = WAITING.gauge(registry)
        self._rejected = REJECTED.counter(registry)
        self._refused = REFUSED.counter(registry)
        self._renders = RenderMetrics(registry)
        self._upload_bytes = UPLOAD_BYTES.counter(registry)
        self._cache_lookups = _CacheLookups()
        registry.register(self._cache_lookups)
        self.worker = WorkerMetrics(registry, self.observe_render)
        self.triton = TritonMetrics(registry)
        self.live = LiveMetrics(registry)
        self._queue = _Queue()
        registry.register(self._queue)
        self._connections = CONNECTIONS.gauge(registry)
        self._closed_connections = CLOSED_CONNECTIONS.counter(registry)
        for reason in _REJECTIONS.values():
            self._rejected.labels(reason)  # a rate needs the first sample to be 0
        for reason in REASONS:
            self._closed_connections.labels(reason)

    def watch_jobs(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Read the numbers of running and waiting jobs from these functions whenever the metrics are read."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def watch_connections(self, number: Callable[[], int]) -> None:
        """Read the number of open connections from this function whenever the metrics are read."""
        self._connections.set_function(number)

    def count_closed_connection(self, reason: str) -> None:
        """Count a connection that the gateway ended."""
        self._closed_connections.labels(reason).inc()

    def watch_cache(self, hits: Callable[[], int], misses: Callable[[], int]) -> None:
        """Read the cache's hits and misses from these functions whenever the metrics are read."""
        self._cache_lookups.counts = {"hit": hits, "miss": misses}

    def show_queue(self, state: QueueState | None) -> None:
        """Export this state of the queue from now on; None while the database does not answer."""
        self._queue.state = state

    def count_upload(self, size: int) -> None:
        """Add bytes of a request body."""
        self._upload_bytes.inc(size)

    def observe_request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """Count a finished request; `status` is None where no response was started."""
        route, method = getattr(scope.get("route"), "path", OTHER), scope["method"]
        self._requests.labels(method if method in METHODS else OTHER, route, str(status or "none")).inc()
        self._seconds.labels(route).observe(seconds)

    def count_socket(self, scope: Scope, status: int | None) -> None:
        """Count a WebSocket that has ended, by the status of its upgrade; its seconds are those of a session."""
        route = getattr(scope.get("route"), "path", OTHER)
        self._requests.labels("GET", route, str(status or "none")).inc()

    def count_error(self, kind: str) -> None:
        """Count a request that ended in an error of this class."""
        self._errors.labels(kind).inc()
        if kind in _REJECTIONS:
            self._rejected.labels(_REJECTIONS[kind]).inc()
            self._refused.inc()

    def observe_render(self, frames: int, stages: Mapping[str, float]) -> None:
        """Count a rendered video: its frames, and the seconds of each stage."""
        self._renders.observe(frames, stages)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)


class _Queue(Collector):
    """Exports the state of the queue that was read from the database last."""

    def __init__(self) -> None:
        self.state: QueueState | None = None

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the samples; none without a database."""
        jobs = GaugeMetricFamily(QUEUED_JOBS.name, QUEUED_JOBS.description, labels=QUEUED_JOBS.labels)
        oldest = GaugeMetricFamily(OLDEST_QUEUED.name, OLDEST_QUEUED.description, labels=OLDEST_QUEUED.labels)
        totals = {total: CounterMetricFamily(each.name, each.description) for each, total in _TOTALS.items()}
        if self.state:
            for job_class in JobClass:
                for state in (JobState.QUEUED, JobState.RUNNING):
                    jobs.add_metric((state, job_class), self.state.jobs.get((state, job_class), 0))
                oldest.add_metric((job_class,), self.state.oldest[job_class])
            for total, family in totals.items():
                family.add_metric((), self.state.totals[total])
        yield jobs
        yield oldest
        yield from totals.values()


class _CacheLookups(Collector):
    """Exports the counters that the cache keeps itself."""

    def __init__(self) -> None:
        self.counts: Mapping[str, Callable[[], int]] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield one sample per result; none where the cache is disabled."""
        family = CounterMetricFamily(CACHE_LOOKUPS.name, CACHE_LOOKUPS.description, labels=CACHE_LOOKUPS.labels)
        for result, count in self.counts.items():
            family.add_metric((result,), count())
        yield family
