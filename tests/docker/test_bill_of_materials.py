"""`make sbom` lists the packages that the images install, in the versions of the lock."""

import re
from pathlib import Path

import pytest

from scripts import sbom
from tests.support.dockerfiles import DOCKERFILES, ROOT, read_yaml

LOCK = {line.partition(" ")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}


@pytest.mark.parametrize("image", DOCKERFILES)
def test_the_list_of_an_image_has_exact_versions_of_the_lock(image: str) -> None:
    lines = sbom.packages_of(image, sbom.IMAGES[image])
    assert lines == sorted(set(lines), key=lines.index)
    assert set(lines) <= LOCK
    assert "numpy==1.26.4" in lines


def test_each_image_lists_what_only_it_needs() -> None:
    names = {
        image: {line.partition("==")[0] for line in sbom.packages_of(image, python)}
        for image, python in sbom.IMAGES.items()
    }
    assert {"fastapi", "pixellib"} <= names["gateway"]
    assert {"openvino", "pixellib", "threadpoolctl"} <= names["triton"]
    assert {"torch", "tensorflow_cpu", "tensorflow-cpu"} & names["export"]
    for image in ("gateway", "triton"):
        assert not {"librosa", "numba", "torch"} & names[image]


def test_the_python_of_each_image_is_that_of_its_base() -> None:
    for image, python in sbom.IMAGES.items():
        base = re.findall(r"^FROM (\S+)", DOCKERFILES[image].read_text(), re.M)[-1]
        assert base.startswith(f"python:{python}.") or (python == "3.12" and "tritonserver" in base)


def test_the_cache_of_layers_has_no_layer_of_nvidias_image() -> None:
    for name in ("cache.yml", "cache-export.yml"):
        services = read_yaml(ROOT / "docker" / name)["services"]
        assert services
        for service, settings in services.items():
            assert "triton" not in service
            ((kind, (reference,)),) = settings["build"].items()
            assert kind in {"cache_from", "cache_to"}
            assert reference.startswith("type=registry,ref=${CACHE:?}:" + service.removesuffix("-cpu"))


def test_the_tool_is_pinned() -> None:
    lines = Path(sbom.ROOT / "scripts" / "sbom-requirements.txt").read_text().splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
