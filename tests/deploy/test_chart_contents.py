"""The chart agrees with the code: its settings, paths, metrics and queries exist, and a typo is refused."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from avatar.settings import LiveSettings, load, variable_of
from gateway.app import create_app
from gateway.settings import Settings
from jobs.settings import WorkerSettings
from scripts import chart_schema
from scripts.check_deploy import KUBERNETES, RENDERINGS, faults_of, helm, rendered, value_flags
from scripts.helm_tools import main as helm_tools
from tests.support.chart import container, environment, named, of_kind, pods, selects
from tests.support.dockerfiles import DOCKER, read_yaml

# variables that are no settings, but those of embedded.container, NVIDIA's runtime, PostgreSQL's image, the exporter
FOREIGN = (
    r"NVIDIA_DRIVER_CAPABILITIES|POSTGRES_(USER|DB|PASSWORD|INITDB_ARGS)|EXPORT_(PROFILE|FORMAT|PRECISION)|"
    r"AVATAR_TRITON_SHARED_MEMORY|AVATAR_ACCEPT_LICENSE|AVATAR_MODEL_STORE(_KEY)?|AWS_ENDPOINT_URL|AWS_REGION"
)
PATHS = {"AVATAR_STORE", "AVATAR_API_KEYS"}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_every_variable_is_a_setting_or_one_of_a_known_program(rendering: str) -> None:
    for each in pods(rendered(rendering)):
        known = {variable_of(name) for name in chart_schema.SETTINGS.get(each.component, LiveSettings).model_fields}
        for part in each.containers:
            for name in environment(part):
                assert name in known or re.fullmatch(FOREIGN, name), f"{part['name']}: {name}"


@pytest.mark.parametrize("component", chart_schema.SETTINGS)
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_the_settings_are_valid(
    rendering: str, component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment(container(rendering, component)).items():
        if name.startswith("AVATAR_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AVATAR_WORK_DIR", str(tmp_path))
    settings = load(chart_schema.SETTINGS[component])
    if component != "triton":
        assert isinstance(settings, WorkerSettings | Settings)
        assert settings.triton_url == "dns:///avatar-talking-avatar-triton-headless.demo.svc:8001"
        service = named(rendered(rendering), "Service", "-triton-headless")
        assert service["spec"]["clusterIP"] == "None"


def test_the_schema_knows_which_variables_the_templates_set() -> None:
    objects = rendered("gpu", "--set", "otlpEndpoint=http://collector:4318")
    for each in pods(objects):
        if each.component in chart_schema.SET_BY_CHART:
            (part,) = (part for part in each.containers if part["name"] == each.component)
            found = {name for name in environment(part) if name.startswith("AVATAR_")}
            assert found == chart_schema.SET_BY_CHART[each.component]


def test_the_schema_of_the_values_is_what_the_script_writes() -> None:
    assert chart_schema.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("flag", "named_by_helm"),
    [
        ("gateway.replica=3", "replica"),
        ("gateway.env.AVATAR_MAX_JOB=3", "AVATAR_MAX_JOB"),
        ("gateway.env.AVATAR_TRITON_URL=triton:8001", "AVATAR_TRITON_URL"),
        ("triton.env.AVATAR_MAX_CONNECTIONS=3", "AVATAR_MAX_CONNECTIONS"),
        ("triton.devices.gpu=1", "gpu"),
        ("triton.sharedMemory=4 GB", "sharedMemory"),
        ("autoscaling.mode=on", "mode"),
        ("store.location=/data", "location"),
        ("worker.replicas=two", "replicas"),
    ],
)
def test_a_typo_in_the_values_is_refused_with_its_name(flag: str, named_by_helm: str) -> None:
    done = helm("template", "avatar", str(chart_schema.CHART), *value_flags("cpu"), "--set", flag)
    assert done.returncode != 0
    assert "values don't meet the specifications" in done.stderr
    assert named_by_helm in done.stderr


@pytest.mark.parametrize(
    ("rendering", "flag", "message"),
    [
        ("cpu", "database.urlSecret.name=", "name a Secret with the URL of PostgreSQL"),
        ("cpu", "store.location=", "give an object store"),
        ("cpu", "models.store.source=", "give LOCATION[@TAG] of a model store"),
        ("cpu", "export.enabled=true", "say where to push the repository"),
        ("cpu", "triton.plans.enabled=true", "needs a device"),
        ("cpu", "store.volume.enabled=true", "not both"),
        ("trial", "database.urlSecret.name=x", "not both"),
        ("cpu", "routes.http.parentRefs=null", "name a Gateway"),
        ("cpu", "monitoring.serviceMonitor.enabled=true", "with API keys, name a Secret with one for the metrics"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(rendering: str, flag: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        rendered(rendering, "--set", flag)


def test_settings_that_are_given_reach_their_container() -> None:
    flags = ("--set", "gateway.env.AVATAR_MAX_QUEUED=7", "--set-json", 'worker.envSecrets=["webhooks"]')
    objects = rendered("cpu", *flags)
    gateway, worker = (
        next(each.containers[0] for each in pods(objects) if each.component == name) for name in ("gateway", "worker")
    )
    assert environment(gateway)["AVATAR_MAX_QUEUED"] == "7"
    assert {"secretRef": {"name": "webhooks"}} in worker["envFrom"]


def test_a_fault_in_an_object_is_found() -> None:
    wrong = copy.deepcopy(named(rendered("gpu"), "Deployment", "-gateway"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProb"] = {}
    scaled = copy.deepcopy(named(rendered("gpu"), "ScaledObject", "-worker"))
    scaled["spec"]["triggers"][0]["metadata"]["queri"] = "SELECT 1"
    for item in (wrong, scaled, {"apiVersion": "v9", "kind": "Unknown", "metadata": {"name": "x"}}):
        for version in KUBERNETES:
            assert faults_of(item, version)


def test_every_switch_can_be_turned() -> None:
    flags = [
        *("networkPolicy.enabled=false", "gateway.disruptionBudget.enabled=false", "export.enabled=true"),
        *("export.push.location=s3://m/x", "export.weightsClaim=weights", "otlpEndpoint=http://collector:4318"),
        *("store.endpoint=http://minio:9000", "store.region=eu", "images.pullSecrets[0].name=registry"),
        *("fullnameOverride=face", "logLevel=debug", "serviceAccount.annotations.role=reader"),
    ]
    objects = rendered("cpu", *(part for flag in flags for part in ("--set", flag)))
    assert not [fault for each in objects for fault in faults_of(each, KUBERNETES[-1])]
    assert not of_kind(objects, "NetworkPolicy")
    assert all(each["metadata"]["name"].startswith("face") for each in objects)


def test_probes_ask_for_pages_that_exist() -> None:
    pages = set(create_app(Settings()).openapi()["paths"])
    for rendering in RENDERINGS:
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container(rendering, "gateway")[name]["httpGet"]["path"] in pages
            assert container(rendering, "worker")[name]["httpGet"]["path"] in {"/health", "/metrics"}
        assert container(rendering, "gateway")["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        assert container(rendering, "worker")["readinessProbe"]["httpGet"]["path"] == "/health"


def test_every_page_of_the_gateway_but_its_metrics_has_a_route() -> None:
    live, rule = named(rendered("cpu"), "HTTPRoute", "avatar")["spec"]["rules"]
    assert [match["path"]["value"] for match in live["matches"]] == ["/v1/live"]
    assert live["timeouts"]["request"] == "0s"  # a WebSocket lasts as long as its session
    exact = {match["path"]["value"] for match in rule["matches"] if match["path"]["type"] == "Exact"}
    prefixes = {match["path"]["value"] for match in rule["matches"] if match["path"]["type"] == "PathPrefix"}

    def routed(path: str) -> bool:
        return path in exact or any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)

    pages = {*create_app(Settings()).openapi()["paths"], "/docs", "/docs/assets/x", "/redoc", "/openapi.json"}
    pages |= {"/metrics", "/page/assets/app.js", "/favicon.ico"}
    assert {"/", "/v1/jobs", "/metrics"} <= pages
    assert {page for page in pages if not routed(page)} == {"/metrics"}


def test_the_alerts_are_those_of_compose_and_concern_this_release_only() -> None:
    rule = named(rendered("gpu"), "PrometheusRule", "avatar")
    own = 'up{namespace="demo",job=~"gateway|worker|triton"} == 0'
    source = read_yaml(DOCKER / "prometheus" / "alerts.yml")
    assert "up == 0" in json.dumps(source)
    assert rule["spec"] == json.loads(json.dumps(source).replace("up == 0", own.replace('"', '\\"')))
    for monitor in of_kind(rendered("gpu"), "ServiceMonitor"):
        label = monitor["spec"]["jobLabel"]
        services = [
            service
            for service in of_kind(rendered("gpu"), "Service")
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        ]
        (service,) = services
        assert service["metadata"]["labels"][label] in {"gateway", "worker", "triton"}
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_keda_counts_the_jobs_that_a_worker_can_run_or_runs(database_url: str) -> None:
    (trigger,) = named(rendered("gpu"), "ScaledObject", "-worker")["spec"]["triggers"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for state in ("queued", "queued", "running", "succeeded", "failed", "canceled", "expired"):
            connection.execute(
                "INSERT INTO avatar.jobs (id, tenant, class, state, start_tag, form) "
                "VALUES (gen_random_uuid(), 't', 'batch', %s, 0, %s)",
                (state, Jsonb({})),
            )
        assert connection.execute(trigger["metadata"]["query"]).fetchall() == [(3,)]
    source = trigger["metadata"]["connectionFromEnv"]
    target = named(rendered("gpu"), "ScaledObject", "-worker")["spec"]["scaleTargetRef"]
    assert source in environment(container("gpu", target["envSourceContainerName"]))


@pytest.mark.parametrize(("rendering", "keda"), [("gpu", True), ("cpu", False)])
def test_what_is_scaled_has_no_number_of_replicas_and_one_scaler(rendering: str, keda: bool) -> None:
    objects = rendered(rendering)
    targets = [each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")]
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "ScaledObject")]
    assert len(scaled) == (2 if keda else 0)
    deployments = of_kind(objects, "Deployment")
    assert sorted(targets + scaled) == sorted(each["metadata"]["name"] for each in deployments)
    assert not any("replicas" in each["spec"] for each in deployments)
    assert all("replicas" in each["spec"] for each in of_kind(rendered("trial"), "Deployment"))


def test_the_job_of_the_exporter_has_another_name_when_what_it_does_changes() -> None:
    def name(*flags: str) -> str:
        (job,) = of_kind(rendered("gpu", *flags), "Job")
        return str(job["metadata"]["name"])

    assert name() == name("--set", "worker.replicas=9")
    assert name() != name("--set", "export.precision=fp16")
    assert name() != name("--set", "images.export.tag=0.2.0")


def test_the_programs_are_unpacked_on_first_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert helm_tools([]) == 0
    folder = Path(capfd.readouterr().out.strip())
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"helm", "kubectl"}
