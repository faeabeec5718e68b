"""Prometheus metrics of the jobs that a process runs: of a worker, and of a gateway that runs jobs itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry

from .metric import Metric
from .records import Job, JobResult
from .reports import Outcome

# Buckets: from a short clip to an hour of speech on two cores.
SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)

RUNNING = Metric("avatar_worker_jobs_running", "gauge", (), "Jobs of the queue that this process runs.")
TOTAL = Metric(
    "avatar_worker_jobs_total",
    "counter",
    ("outcome",),
    "Jobs of the queue that this process ran, by how that ended: `succeeded`, `failed`, `canceled`, `lost` "
    "(another worker has the job, or the database did not answer), `given_back` (it is queued again).",
)
JOB_SECONDS = Metric(
    "avatar_worker_job_seconds", "histogram", (), "Seconds from taking a job to the end of the work on it."
)
TAKEOVERS = Metric(
    "avatar_worker_takeovers_total", "counter", (), "Jobs that were taken over from a worker that was lost."
)
WORKER_METRICS = (RUNNING, TOTAL, JOB_SECONDS, TAKEOVERS)


class WorkerMetrics:
    """A `WorkerReport` that counts.

    Args:
        registry: of the process.
        observe_render: receives the frames and the seconds of each stage of every result.
    """

    def __init__(self, registry: CollectorRegistry, observe_render: Callable[[int, Mapping[str, float]], None]) -> None:
        self._running = RUNNING.gauge(registry)
        self._total = TOTAL.counter(registry)
        self._seconds = JOB_SECONDS.histogram(registry, SECONDS)
        self._takeovers = TAKEOVERS.counter(registry)
        self._observe_render = observe_render
        for outcome in get_args(Outcome):
            self._total.labels(outcome)  # a rate needs the first sample to be 0

    def started(self, job: Job, took_over: bool) -> None:
        """As in `WorkerReport`."""
        self._running.inc()
        if took_over:
            self._takeovers.inc()

    def ended(self, job: Job, outcome: Outcome, seconds: float) -> None:
        """As in `WorkerReport`."""
        self._running.dec()
        self._total.labels(outcome).inc()
        self._seconds.observe(seconds)

    def rendered(self, result: JobResult) -> None:
        """As in `WorkerReport`."""
        self._observe_render(result.frames, result.seconds)
