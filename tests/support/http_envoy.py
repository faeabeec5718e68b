"""A real Envoy in front of several gateways: one address for their callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.envoy import Envoy, endpoints, run_envoy, socket_address, write_yaml

_TYPES = "type.googleapis.com/envoy.extensions"
_MANAGER = "filters.network.http_connection_manager.v3.HttpConnectionManager"
_OPTIONS = "upstreams.http.v3.HttpProtocolOptions"


@contextmanager
def http_envoy(folder: Path, gateways: Sequence[str]) -> Iterator[Envoy]:
    """Run Envoy in front of the gateways at these addresses; return it when it calls all of them."""
    envoy = Envoy.in_folder(folder)
    config = {
        "node": {"id": "gateways", "cluster": "gateways"},
        "admin": {"address": socket_address(envoy.admin)},
        "static_resources": {"listeners": [_listener(envoy.address)], "clusters": [_cluster(gateways)]},
    }
    write_yaml(folder / "envoy.yaml", config)
    with run_envoy(envoy, lambda: envoy.healthy("gateways") == len(gateways)):
        yield envoy


def _listener(address: str) -> dict[str, Any]:
    """Only what no gateway has received is sent to another one: a form makes a video, which costs minutes."""
    route = {
        "cluster": "gateways",
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 3,
            "retry_host_predicate": [
                _typed(
                    "envoy.retry_host_predicates.previous_hosts", "retry.host.previous_hosts.v3.PreviousHostsPredicate"
                )
            ],
            "host_selection_retry_max_attempts": "3",
        },
    }
    host = {"name": "gateways", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
    manager = {
        "stat_prefix": "gateways",
        "stream_idle_timeout": "600s",  # a form is silent until its video is complete
        "route_config": {"name": "gateways", "virtual_hosts": [host]},
        "http_filters": [_typed("envoy.filters.http.router", "filters.http.router.v3.Router")],
    }
    chain = {"filters": [_typed("envoy.filters.network.http_connection_manager", _MANAGER, manager)]}
    return {"name": "http", "address": socket_address(address), "filter_chains": [chain]}


def _cluster(gateways: Sequence[str]) -> dict[str, Any]:
    # shorter than AVATAR_KEEP_ALIVE_TIMEOUT: a request never meets a connection that the gateway closes
    options = {
        "common_http_protocol_options": {"idle_timeout": "3s"},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "name": "gateways",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": {
            f"envoy.extensions.{_OPTIONS}": {"@type": f"{_TYPES}.{_OPTIONS}", **options}
        },
        "circuit_breakers": {"thresholds": [{"max_retries": 64}]},
        # a status other than 200 takes a gateway out at once; the threshold is for checks without an answer
        "health_checks": [
            {
                "timeout": "10s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/health/ready"},
            }
        ],
        "load_assignment": {"cluster_name": "gateways", "endpoints": endpoints(gateways)},
    }


def _typed(name: str, kind: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **(values or {})}}
