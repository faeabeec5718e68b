"""What every pod of the chart has to fulfil: no root, limits, closed ports, ends in time."""

from __future__ import annotations

import re
from typing import Any

import pytest

import lipsync
from embedded import access, container
from gateway.settings import Settings
from jobs.settings import WorkerSettings
from scripts.chart_schema import CHART
from scripts.check_deploy import RENDERINGS, examples, rendered
from tests.support.chart import environment, named, of_kind, pod, pods, selects
from tests.support.dockerfiles import DOCKERFILES, compose, last_stage, read_yaml

RENDERING = pytest.mark.parametrize("rendering", RENDERINGS)
SERVICES: dict[str, dict[str, Any]] = compose()["services"]


@RENDERING
def test_no_pod_runs_as_root_or_has_a_token_or_an_open_system_call(rendering: str) -> None:
    for each in pods(rendered(rendering)):
        security = each.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["fsGroup"] == (999 if each.component == "database" else 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each.spec["automountServiceAccountToken"] is False
        assert each.spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(each.spec)


@RENDERING
def test_every_container_is_hardened_and_limited(rendering: str) -> None:
    for part in [part for each in pods(rendered(rendering)) for part in each.containers]:
        assert part["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        }
        for group in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= set(part["resources"][group])
        mounted = {mount["mountPath"] for mount in part["volumeMounts"]}
        assert part["name"] == "wait" or "/tmp" in mounted  # noqa: S108 - in the container


@RENDERING
def test_every_mount_has_its_volume_and_every_empty_folder_a_limit(rendering: str) -> None:
    for each in pods(rendered(rendering)):
        volumes = {volume["name"]: volume for volume in each.spec.get("volumes", ())}
        mounted = {mount["name"] for part in each.containers for mount in part["volumeMounts"]}
        assert mounted - {"data"} == set(volumes)  # the StatefulSet makes `data`
        for volume in volumes.values():
            if (folder := volume.get("emptyDir")) is not None:
                assert folder["sizeLimit"]
                assert folder.get("medium") == ("Memory" if volume["name"] == "shm" else None)


@RENDERING
def test_images_are_those_of_compose_in_the_version_of_the_project(rendering: str) -> None:
    chart = read_yaml(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == lipsync.__version__
    known = {service["image"] for service in SERVICES.values()}
    for each in pods(rendered(rendering)):
        for part in each.containers:
            assert part["image"] in known, part["image"]
    for _, objects in examples():
        for runtime in of_kind(objects, "ServingRuntime"):
            assert {part["image"] for part in runtime["spec"]["containers"]} <= known


def test_a_digest_takes_the_place_of_the_tag_and_a_registry_precedes_the_name() -> None:
    digest = f"sha256:{'a' * 64}"
    flags = ("--set", f"images.triton.digest={digest}", "--set", "images.registry=registry.example.com/team/")
    (triton,) = (each for each in pods(rendered("cpu", *flags)) if each.component == "triton")
    assert {part["image"] for part in triton.containers} == {
        f"registry.example.com/team/talking-avatar/triton@{digest}"
    }


@RENDERING
def test_each_pod_is_selected_by_its_own_objects_only(rendering: str) -> None:
    objects = rendered(rendering)
    for each in pods(objects):
        policies = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
        own = [policy for policy in policies if selects(policy["podSelector"], each.labels)]
        assert len(own) == 1, each.component
        assert own[0]["policyTypes"] == ["Ingress", "Egress"]
        budgets = of_kind(objects, "PodDisruptionBudget")
        count = sum(selects(budget["spec"]["selector"], each.labels) for budget in budgets)
        assert count == (each.component in {"gateway", "worker", "triton"})
        if each.kind == "Deployment":
            for constraint in each.spec["topologySpreadConstraints"]:
                assert selects(constraint["labelSelector"], each.labels)


def peers(objects: Any, component: str) -> dict[int, Any]:
    """Return from where each port of a component can be reached; None means everybody."""
    rules = named(objects, "NetworkPolicy", f"-{component}")["spec"]["ingress"]
    return {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}


@RENDERING
def test_who_may_reach_which_port_is_as_security_md_says(rendering: str) -> None:
    objects = rendered(rendering)
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert peers(objects, "gateway") == {16000: None}
    assert peers(objects, "worker") == {16001: monitoring}
    triton = peers(objects, "triton")
    assert set(triton) == {8001, 8002}
    assert triton[8002] == monitoring
    callers = [each.labels for each in pods(objects) if each.component in {"gateway", "worker"}]
    assert all(any(selects(peer["podSelector"], labels) for peer in triton[8001]) for labels in callers)
    assert len(triton[8001]) == len(callers)
    for each in pods(objects):
        exposed = {port["containerPort"] for part in each.containers for port in part.get("ports", ())}
        assert set(peers(objects, each.component)) == exposed, each.component


@RENDERING
def test_nothing_reaches_the_metadata_of_the_cloud(rendering: str) -> None:
    for policy in of_kind(rendered(rendering), "NetworkPolicy"):
        for rule in policy["spec"]["egress"]:
            for peer in rule.get("to", ()):
                block = peer.get("ipBlock", {"cidr": ""})
                assert block["cidr"] != "0.0.0.0/0" or "169.254.0.0/16" in block["except"]


def test_ports_are_those_of_the_settings_and_of_the_images() -> None:
    gateway, worker, triton = (pod("cpu", name) for name in ("gateway", "worker", "triton"))
    (served,) = gateway.containers[0]["ports"]
    assert served["containerPort"] == Settings.model_fields["port"].default
    assert environment(gateway.containers[0])["AVATAR_PORT"] == str(served["containerPort"])
    (pages,) = worker.containers[0]["ports"]
    assert pages["containerPort"] == WorkerSettings.model_fields["worker_port"].default
    exposed = next(step for step in last_stage(DOCKERFILES["triton"]) if step.name == "EXPOSE").words()
    assert {str(port["containerPort"]) for port in triton.containers[-1]["ports"]} == set(exposed)
    for service in of_kind(rendered("cpu"), "Service"):
        (target,) = (each for each in pods(rendered("cpu")) if selects(service["spec"]["selector"], each.labels))
        ports = {port["name"]: port["containerPort"] for part in target.containers for port in part.get("ports", ())}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_pods_that_stop_have_the_time_that_their_processes_take() -> None:
    for rendering in RENDERINGS:
        gateway, worker, triton = (pod(rendering, name) for name in ("gateway", "worker", "triton"))
        for each in (gateway, worker):
            grace = float(environment(each.containers[0])["AVATAR_SHUTDOWN_GRACE"])
            assert each.spec["terminationGracePeriodSeconds"] >= each.pause + grace + 15
        assert triton.spec["terminationGracePeriodSeconds"] >= triton.pause + container.EXIT_SECONDS + 10
        # the callers see the change of the DNS before the server stops
        assert triton.pause >= 10
        assert gateway.pause >= 1
    for _, objects in examples():
        for service in of_kind(objects, "InferenceService"):
            assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] >= 10 + container.EXIT_SECONDS + 10


def test_compose_gives_triton_the_time_that_it_takes_to_stop() -> None:
    for name in ("triton", "triton-cpu"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= container.EXIT_SECONDS + 10


def test_the_longest_grace_is_longer_than_what_compose_gives() -> None:
    flags = ("--set-json", "gateway.shutdownGrace=120.5", "--set", "worker.shutdownGrace=600")
    found = {each.component: each for each in pods(rendered("cpu", *flags))}
    assert found["gateway"].spec["terminationGracePeriodSeconds"] == 5 + 121 + 20
    assert found["worker"].spec["terminationGracePeriodSeconds"] == 620


def test_triton_has_a_gpu_a_slice_of_one_or_none() -> None:
    def devices(rendering: str) -> list[dict[str, str]]:
        parts = pod(rendering, "triton").containers
        found = [{name: count for name, count in part["resources"]["limits"].items() if "/" in name} for part in parts]
        return [each for each in found if each]

    assert devices("cpu") == devices("trial") == []
    assert devices("gpu") == [{"nvidia.com/gpu": "1"}] * 2  # plans are built on what serves them
    assert devices("mig") == [{"nvidia.com/mig-3g.71gb": "1"}] * 2
    gpu = pod("gpu", "triton")
    assert gpu.spec["runtimeClassName"] == "nvidia"
    assert gpu.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert environment(gpu.containers[-1])["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"


def test_every_folder_that_the_images_write_to_is_a_volume() -> None:
    for name, component in (("gateway", "gateway"), ("triton", "triton"), ("export", "export")):
        text = DOCKERFILES[name].read_text()
        folders = {
            word for line in re.findall(r"install -d -o 1000 -g 1000 ([^\\&\n]+)", text) for word in line.split()
        }
        mounted = {
            mount["mountPath"]
            for rendering in RENDERINGS
            for each in pods(rendered(rendering))
            if each.component == component
            for part in each.containers
            for mount in part["volumeMounts"]
        }
        optional = {"/weights", "/var/lib/avatar/keys"}
        assert folders - optional <= mounted


def test_the_side_doors_of_triton_have_no_route() -> None:
    route = named(rendered("gpu"), "GRPCRoute", "-triton")["spec"]["rules"]
    methods = {match["method"]["method"] for rule in route for match in rule["matches"]}
    assert {"ModelInfer", "ModelStreamInfer", "ServerReady"} <= methods
    assert not any(re.search("SharedMemory|Repository|Trace|Log|Statistics", method) for method in methods)
    (headers,) = route[0]["filters"]
    assert headers["requestHeaderModifier"]["remove"] == ["triton_grpc_error", access.HEADER]


def test_the_database_of_a_trial_is_that_of_compose() -> None:
    (part,) = pod("trial", "database").containers
    own, given = environment(part), SERVICES["postgres"]["environment"]
    for name in ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_INITDB_ARGS"):
        assert own[name] == given[name]
    major = part["image"].partition(":")[2].partition(".")[0]
    assert part["lifecycle"]["preStop"]["exec"]["command"][-1] == f"--pgdata=/var/lib/postgresql/{major}/docker"
    assert "POSTGRES_HOST_AUTH_METHOD" not in own  # over the network it has a password


def test_the_entry_point_of_nvidias_image_stays_where_cuda_is_used() -> None:
    for rendering in RENDERINGS:
        for part in pod(rendering, "triton").containers:
            assert ("command" in part) != (part["name"] in {"triton", "plans"})


def test_kserve_runs_the_same_container_as_the_chart() -> None:
    (runtime,) = (each for name, objects in examples() for each in of_kind(objects, "ServingRuntime"))
    (part,) = runtime["spec"]["containers"]
    own = pod("cpu", "triton").containers[-1]
    assert " ".join(own["args"]) in " ".join(part["args"])
    assert container.REPOSITORY in " ".join(part["args"])
    for name in ("readinessProbe", "startupProbe", "livenessProbe", "lifecycle"):
        assert part[name] == own[name]
    assert own["securityContext"].items() <= part["securityContext"].items()
    assert part["securityContext"]["runAsNonRoot"] is True
