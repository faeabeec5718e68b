"""What a worker reports about its jobs; metrics are made of it."""

from __future__ import annotations

from typing import Literal, Protocol

from .records import Job, JobResult

# `lost`: another worker has the job now; `given_back`: it is queued again.
Outcome = Literal["succeeded", "failed", "canceled", "lost", "given_back"]


class WorkerReport(Protocol):
    """Receives what happens to the jobs of a worker. The calls return at once."""

    def started(self, job: Job, took_over: bool) -> None:
        """A job was taken; `took_over`: its last worker was lost."""

    def ended(self, job: Job, outcome: Outcome, seconds: float) -> None:
        """This worker has nothing more to do with the job, after so many seconds."""

    def rendered(self, result: JobResult) -> None:
        """The result of a job was accepted."""


class NoReport:
    """Ignores everything."""

    def started(self, job: Job, took_over: bool) -> None:
        """As in `WorkerReport`."""

    def ended(self, job: Job, outcome: Outcome, seconds: float) -> None:
        """As in `WorkerReport`."""

    def rendered(self, result: JobResult) -> None:
        """As in `WorkerReport`."""


NO_REPORT = NoReport()
