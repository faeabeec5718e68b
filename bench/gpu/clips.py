"""Whole clips over HTTP: against the original algorithm on the same device, and many at once against x264 alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict

from ..cli import FAILURES
from ..comparison.baseline import NoNetworks
from ..comparison.original_process import OriginalProcess
from ..comparison.results import CACHED_AVATAR, NEW_AVATAR, ORIGINAL, WorkloadResult
from ..comparison.runner import Runner
from ..comparison.workloads import Workload
from ..weights import timing_networks
from .card import CardMonitor
from .rows import Row
from .serving import served, service
from .settings import Settings

SAMPLED = 0.5  # megapixels in which the original detects faces on a CPU; on a GPU it processes the whole clip


def video(settings: Settings) -> Iterator[Row]:
    """Measure clips one at a time, and the original algorithm on the same clip."""
    yield from _measure(settings, settings.scale.video)


def many(settings: Settings) -> Iterator[Row]:
    """Measure many clips at once, and x264 alone."""
    yield from _measure(settings, settings.scale.many)


def _measure(settings: Settings, workload: Workload) -> Iterator[Row]:
    """Yield what was measured, also if a part of it fails or the step is cut."""
    result = WorkloadResult(workload)
    failure: BaseException | None = None
    with ExitStack() as parts:
        server = parts.enter_context(served(settings, settings.formats[0]))
        running = parts.enter_context(service(settings, server))
        original = None
        if workload.forms == 1:
            original = parts.enter_context(OriginalProcess(timing_networks(settings.weights), settings.device))
        try:
            with CardMonitor(settings.device, server.metrics) as card:
                Runner(_arguments(settings), {}).measure_one(result, NoNetworks(), original, running)
        except (*FAILURES, KeyboardInterrupt) as error:  # the latter at the limit of the step
            failure = error
        yield from _rows(result, dict(card.means))  # before the servers stop, which takes a while
        if failure:
            raise failure


def _arguments(settings: Settings) -> argparse.Namespace:
    sample = 0.0 if settings.device == "cuda" else SAMPLED
    return argparse.Namespace(
        work=settings.work, rounds=settings.scale.rounds, sample=sample, no_original=False, profile=settings.profile
    )


def _rows(result: WorkloadResult, means: Row) -> Iterator[Row]:
    name = result.workload.description
    for subject in result.subjects:
        if took := result.seconds(subject):
            ratio = result.ratio(ORIGINAL, subject) if subject in (NEW_AVATAR, CACHED_AVATAR) else None
            row: Row = {"table": "clips", "workload": name, "subject": subject, **asdict(took)}
            yield row | {"times_original": ratio.median if ratio else None, "stages": result.stages(subject)} | means
    for verdict in result.verdicts():
        yield {"table": "verdicts", "workload": name, **asdict(verdict)}
