"""Images that sign videos: the build argument, and docker/c2pa.yml."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from avatar.settings import JobSettings, variable_of
from tests.support.dockerfiles import DOCKERFILES, ROOT, compose, read_yaml, steps

EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["c2pa"]
SIGNING = {"triton", "triton-cpu", "gateway", "gateway-cpu", "worker", "worker-cpu"}
FILE = read_yaml(ROOT / "docker" / "c2pa.yml")


def required(folder: Path, **variables: str) -> list[str]:
    """Return what the install script asks pip for, for the gateway."""
    pip = folder / "pip"
    pip.write_text("#!/bin/sh\ncat\n")
    pip.chmod(0o755)
    command = ["bash", "docker/install.sh", "gateway"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "PIP": str(pip), **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_build_argument_adds_the_packages_of_the_extra_in_the_versions_of_the_lock(tmp_path: Path) -> None:
    plain, signing = required(tmp_path), required(tmp_path, EXTRAS="c2pa")
    assert not set(EXTRA) & set(plain)
    assert set(signing) - set(plain) == set(EXTRA)
    assert set(EXTRA) <= set((ROOT / "requirements.lock").read_text().splitlines())
    assert required(tmp_path, EXTRAS="") == plain


@pytest.mark.parametrize("image", ["gateway", "triton"])
def test_the_argument_is_declared_before_the_script_runs_in_its_stage(image: str) -> None:
    named = steps(DOCKERFILES[image])
    (install,) = (i for i, each in enumerate(named) if each.name == "RUN" and "bash install.sh" in each.rest)
    (argument,) = (i for i, each in enumerate(named) if each.name == "ARG" and each.rest == "EXTRAS=")
    assert argument < install
    assert "FROM" not in {each.name for each in named[argument:install]}


def test_the_file_signs_in_every_container_that_makes_videos_and_builds_their_images_alike() -> None:
    services, whole = FILE["services"], compose()["services"]
    images = {whole[name]["image"] for name in SIGNING}
    assert set(services) == {name for name, each in whole.items() if each["image"] in images}
    for name, service in services.items():
        assert service["build"] == {"args": {"EXTRAS": "c2pa"}}
        assert name in SIGNING or set(service) == {"build"}


def test_the_settings_name_the_secrets_that_are_files_without_a_default() -> None:
    known = set(map(variable_of, JobSettings.model_fields))
    for name in SIGNING:
        service = FILE["services"][name]
        environment = dict(service["environment"])
        assert environment.keys() <= known
        assert environment.pop("AVATAR_MARK") == "c2pa"
        assert set(environment.values()) == {f"/run/secrets/{secret}" for secret in service["secrets"]}
        assert set(service["secrets"]) == set(FILE["secrets"])
    for secret in FILE["secrets"].values():
        assert set(secret) == {"file"}
        assert secret["file"].startswith("${AVATAR_C2PA_")
        assert ":?" in secret["file"]


def test_the_guide_names_the_file_and_the_argument() -> None:
    guide = (ROOT / "docs/guide/marking.md").read_text()
    assert "-f docker/c2pa.yml up --wait" in guide
    assert "--build-arg EXTRAS=c2pa" in guide
