"""Reckon how many files and connections the gateway has open at the most, and fit it to what the system allows."""

from __future__ import annotations

import logging
import resource

from .connection_pool import BACKLOG, MAX_REFUSED
from .settings import Settings

logger = logging.getLogger(__name__)

BASE = 40  # the process itself: log, listener, event loop, gRPC channels, cache, threads that read a file
PER_JOB = 20  # ffmpeg's pipes of a job's decoders and encoder, files, and shared memory
PER_PLACE = 2  # the file of an upload that is written, and the file of a result that is sent
_FEWEST_CONNECTIONS = 8  # a few callers, and whoever asks for the health of the service


class TooFewDescriptors(Exception):
    """The gateway cannot work with so few open files."""


def needed(settings: Settings) -> int:
    """Return the number of descriptors for all jobs, places and connections of these settings."""
    return _without_connections(settings) + settings.max_connections


def fit(settings: Settings) -> Settings:
    """Raise the limit of open files as far as needed; where that is not possible, return smaller settings.

    Raises:
        TooFewDescriptors: not even the jobs and a few connections fit.
    """
    most = _raise_limit(needed(settings))
    left = most - _without_connections(settings)
    if left >= settings.max_connections:
        return settings
    if left < _FEWEST_CONNECTIONS:
        raise TooFewDescriptors(
            f"this process may open {most} files, but needs {_without_connections(settings) + _FEWEST_CONNECTIONS} "
            f"for AVATAR_MAX_JOBS={settings.max_jobs} and AVATAR_MAX_QUEUED={settings.max_queued}: "
            f"raise the limit (ulimit -n {needed(settings)}), or lower these settings"
        )
    logger.warning(
        "this process may open %d files: at most %d connections instead of AVATAR_MAX_CONNECTIONS=%d; "
        "raise the limit of open files to %d",
        most,
        left,
        settings.max_connections,
        needed(settings),
    )
    return settings.model_copy(update={"max_connections": left})


def _without_connections(settings: Settings) -> int:
    places = settings.max_jobs + settings.max_queued
    return BASE + BACKLOG + MAX_REFUSED + settings.max_jobs * PER_JOB + places * PER_PLACE


def _raise_limit(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or as far as the hard limit allows; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)
