"""Metrics of the live sessions that a gateway carries."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from jobs.metric import Metric

TRANSPORTS = ("websocket", "webrtc")
LIVE_CALLERS = Metric(
    "avatar_live_callers", "gauge", ("transport",), "Live sessions over the gateway, by `websocket` or `webrtc`."
)
LIVE_STARTS = Metric(
    "avatar_live_admitted_total", "counter", ("transport",), "Live sessions over the gateway that were admitted."
)
LIVE_FRAMES = Metric(
    "avatar_live_sent_frames_total", "counter", ("transport",), "Frames that were sent to callers of live sessions."
)
LIVE_METRICS = (LIVE_CALLERS, LIVE_STARTS, LIVE_FRAMES)


class LiveMetrics:
    """Counts sessions and their frames."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._running = LIVE_CALLERS.gauge(registry)
        self._starts = LIVE_STARTS.counter(registry)
        self._frames = LIVE_FRAMES.counter(registry)
        for transport in TRANSPORTS:
            for each in (self._running, self._starts, self._frames):
                each.labels(transport)  # a rate needs the first sample to be 0

    def started(self, transport: str) -> None:
        """Count a session that begins."""
        self._running.labels(transport).inc()
        self._starts.labels(transport).inc()

    def ended(self, transport: str) -> None:
        """Count a session that ends."""
        self._running.labels(transport).dec()

    def sent(self, transport: str) -> None:
        """Count a frame."""
        self._frames.labels(transport).inc()
