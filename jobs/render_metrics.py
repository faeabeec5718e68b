"""Prometheus metrics of rendered videos, the same in the gateway and in workers, so that they can be added up."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from .metric import Metric

# Buckets: from a ping to an hour of speech on two cores.
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

STAGE_SECONDS = Metric(
    "avatar_stage_seconds",
    "histogram",
    ("stage",),
    "Seconds of each stage of a finished job, as in the Server-Timing header.",
)
FRAMES = Metric("avatar_frames_total", "counter", (), "Frames of all rendered videos.")


class RenderMetrics:
    """Counts frames, and the seconds of each stage."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._frames = FRAMES.counter(registry)
        self._stages = STAGE_SECONDS.histogram(registry, SECONDS)

    def observe(self, frames: int, stages: Mapping[str, float]) -> None:
        """Count a rendered video: its frames, and the seconds of each stage."""
        self._frames.inc(frames)
        for stage, seconds in stages.items():
            self._stages.labels(stage).observe(seconds)
