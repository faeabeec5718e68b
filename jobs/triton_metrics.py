"""Prometheus metrics of the Tritons that a process calls, in the gateway and in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from avatar.inference.protocol import InferenceClient, ReportsServers, ServerState

from .metric import Metric

HEALTHY = Metric(
    "avatar_triton_healthy",
    "gauge",
    ("server",),
    "1 for a Triton that gets calls, 0 for one that did not answer or is stopping.",
)
IN_FLIGHT = Metric(
    "avatar_triton_calls_in_flight", "gauge", ("server",), "Inferences that a Triton has not answered yet."
)
CALLS = Metric("avatar_triton_calls_total", "counter", ("server",), "Inferences that were sent to a Triton.")
FAILURES = Metric(
    "avatar_triton_failures_total",
    "counter",
    ("server",),
    "Inferences that a Triton did not answer, because it was lost, stopping or too slow; with several Tritons most are "
    "made again on another one.",
)
TRITON_METRICS = (HEALTHY, IN_FLIGHT, CALLS, FAILURES)


class TritonMetrics(Collector):
    """Exports what a client knows of its servers. One that is no longer an address of the service has no sample."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._servers: Callable[[], Sequence[ServerState]] = tuple
        registry.register(self)

    def watch(self, models: InferenceClient) -> None:
        """Read the servers of this client whenever the metrics are read."""
        if isinstance(models, ReportsServers):
            self._servers = models.servers

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the samples; none before the first call."""
        servers = self._servers()
        for metric, value in _VALUES.items():
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.description, labels=metric.labels)
            for server in servers:
                family.add_metric((server.address,), value(server))
            yield family


_VALUES: dict[Metric, Callable[[ServerState], float]] = {
    HEALTHY: lambda server: server.healthy,
    IN_FLIGHT: lambda server: server.in_flight,
    CALLS: lambda server: server.calls,
    FAILURES: lambda server: server.failures,
}
