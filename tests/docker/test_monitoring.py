"""The configuration of Prometheus and Grafana: every metric of the dashboard and the alerts is exported."""

import json
import re
import urllib.request
from typing import Any

import pytest

from avatar.errors import AvatarError
from avatar.serving.metrics import MODEL_METRICS
from embedded.server import Triton
from gateway.app import create_app
from gateway.errors import INTERNAL_ERROR
from gateway.metrics import METRICS
from gateway.settings import Settings
from jobs.settings import WorkerSettings
from tests.support.dockerfiles import DOCKER, compose, read_yaml

PROMETHEUS = read_yaml(DOCKER / "prometheus" / "prometheus.yml")
ALERTS = read_yaml(DOCKER / "prometheus" / "alerts.yml")
DATASOURCE = read_yaml(DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
PROVIDER = read_yaml(DOCKER / "grafana" / "provisioning" / "dashboards" / "avatar.yml")["providers"][0]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "avatar.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# A machine without a GPU does not export these. The names are those that src/metrics.cc of
# triton-inference-server/core, branch r24.10, registers and its user guide lists under "GPU Metrics".
GPU_METRICS = {
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
    "nv_energy_consumption",
}
FUNCTIONS = {"sum", "max", "min", "by", "and", "rate", "increase", "resets", "histogram_quantile"}


def expressions() -> list[str]:
    alerts = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in PANELS for target in panel["targets"]]


def metrics_of(expression: str) -> set[str]:
    """Return the names in a PromQL expression that are neither functions, labels, nor durations."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", " ", expression)
    return set(re.findall(r"[a-zA-Z_]\w*", bare)) - FUNCTIONS


def labels_of(expression: str) -> set[str]:
    groups = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    return set(re.findall(r"\w+", groups)) | set(re.findall(r"(\w+)=", expression))


def samples(text: str) -> dict[str, set[str]]:
    """Return the names of the samples in a text of metrics, as Prometheus keeps them, with their labels."""
    lines = re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.M)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in lines}


@pytest.fixture(scope="module")
def exported(triton: Triton) -> dict[str, set[str]]:
    """Return the labels of every exported metric by name: Triton's from a live server, ours from their tables."""
    with urllib.request.urlopen(f"http://{triton.metrics_address}/metrics") as answer:
        metrics = samples(answer.read().decode())
    metrics |= samples(create_app(Settings()).state.metrics.text().decode())
    assert {metric.name for metric in MODEL_METRICS if metric.kind != "histogram"} <= set(metrics)
    tables = [(metric.name, metric.kind, {*metric.labels}) for metric in METRICS]
    tables += [(metric.name, metric.kind, {*metric.labels, "process"}) for metric in MODEL_METRICS]
    for name, kind, labels in tables:
        names = {"": labels}
        if kind == "histogram":
            names = {"_bucket": labels | {"le"}, "_sum": labels, "_count": labels}
        metrics |= {name + ending: own for ending, own in names.items()}
    metrics |= {name: {"gpu_uuid"} for name in GPU_METRICS}
    return metrics | {"up": set()}


def test_every_metric_of_an_expression_is_exported(exported: dict[str, set[str]]) -> None:
    used = set().union(*map(metrics_of, expressions()))
    assert used <= set(exported), used - set(exported)
    assert {"nv_inference_count", "avatar_stage_seconds_bucket", "up"} <= used  # the expressions were parsed


def test_every_label_of_an_expression_is_exported(exported: dict[str, set[str]]) -> None:
    for expression in expressions():
        labels = set().union(*(exported[name] for name in metrics_of(expression))) | {"job", "instance"}
        assert labels_of(expression) <= labels, expression


def test_prometheus_scrapes_the_addresses_of_the_services() -> None:
    services = compose()["services"]
    scraped = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    (workers,) = scraped.pop("worker")["dns_sd_configs"]  # several may run
    for name in ("worker", "worker-cpu"):
        assert workers["names"] == services[name]["networks"]["default"]["aliases"]
    assert workers["port"] == WorkerSettings.model_fields["worker_port"].default
    targets = {name: job["static_configs"][0]["targets"][0] for name, job in scraped.items()}
    assert targets == {"gateway": f"gateway:{Settings.model_fields['port'].default}", "triton": "triton:8002"}
    assert {"gateway", "triton"} <= set(services)
    assert all("metrics_path" not in job for job in PROMETHEUS["scrape_configs"])  # the default, /metrics
    (rules,) = PROMETHEUS["rule_files"]
    assert "./docker/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert rules == "/etc/prometheus/alerts.yml"


def test_every_job_of_an_expression_is_scraped() -> None:
    jobs = {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    for expression in expressions():
        assert set(re.findall(r'job="(\w+)"', expression)) <= jobs


def test_every_alert_has_a_summary() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        assert rule["annotations"]["summary"]


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    services = compose()["services"]
    assert DATASOURCE["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in services["prometheus"]["ports"]
    assert f"./docker/grafana/dashboards:{PROVIDER['options']['path']}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{PROVIDER['options']['path']}/avatar.json"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_uses_the_provisioned_datasource_and_has_a_unit(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    for source in (panel, *panel["targets"]):
        assert source["datasource"] == {"type": DATASOURCE["type"], "uid": DATASOURCE["uid"]}
    assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_panels_have_different_ids_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_the_kinds_of_errors_that_an_alert_names_exist() -> None:
    known = {each.__name__ for each in _subclasses(AvatarError)} | {INTERNAL_ERROR}
    values = [value for expression in expressions() for value in re.findall(r'kind=~?"([^"]+)"', expression)]
    named = {kind for value in values for kind in value.split("|")}
    assert named and named <= known


def _subclasses(kind: type[AvatarError]) -> set[type[AvatarError]]:
    direct = kind.__subclasses__()
    return set(direct).union(*map(_subclasses, direct))


def test_the_dashboard_shows_every_metric_of_the_gateway_and_of_the_models() -> None:
    used = set().union(*(metrics_of(target["expr"]) for panel in PANELS for target in panel["targets"]))
    old_names = {metric.name for metric in METRICS if metric.description.startswith("Deprecated")}
    shown = {each.name for each in METRICS if each.kind != "histogram"} | {
        each.name + ("_bucket" if each.kind == "histogram" else "") for each in MODEL_METRICS
    }
    assert shown - old_names <= used
    assert not old_names & used
    assert {"nv_inference_queue_duration_us", "nv_inference_exec_count", "nv_gpu_utilization"} <= used
