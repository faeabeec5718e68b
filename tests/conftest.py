"""Fixtures that every test may use. The heavy ones are made once a session, and only when asked for.

With AVATAR_TEST_CACHE=DIR the exported repositories are kept in DIR between runs; what is up to date
there is not exported again.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from embedded.server import Triton
from tests.support.gateway_process import Gateway, gateway_process

ROOT = Path(__file__).parents[1]
# Tests that need one of these fixtures run on the same worker, so that what is costly is made once per run.
WORKER_OF = {
    "live": {"triton", "gateway", "served"},
    "exports": {
        "stand_in_weights",
        "golden_weights",
        "repository",
        "golden_repository",
        "golden_triton",
        "stand_in_triton",
    },
}
# OpenVINO reports over the network that it is imported, but not without this module
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)  # runs before every other one: pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark the tests by their costly fixtures, and group them (see `--dist loadgroup` of pytest-xdist)."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        for group, fixtures in WORKER_OF.items():
            if not used & fixtures:
                continue
            item.add_marker(getattr(pytest.mark, group))
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(group))
    yield


def job_env(folder: Path) -> dict[str, str]:
    """The settings of the models that are the whole job: what they write is below `folder`."""
    (folder / "work").mkdir(exist_ok=True)
    return {"AVATAR_WORK_DIR": str(folder / "work"), "AVATAR_CACHE_DIR": str(folder / "cache")}


@pytest.fixture(scope="session")
def golden() -> Path:
    """Data computed by the original code."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The portrait and the speech that ship with the project."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints and repositories of the tests are made."""
    kept = os.environ.get("AVATAR_TEST_CACHE")
    return Path(kept).resolve() if kept else tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def stand_in_weights(cache: Path) -> Path:
    """A folder with the stand-in checkpoints."""
    from export import stand_ins  # PyTorch takes seconds to import, and most tests need none of it

    weights = cache / "stand-ins"
    stand_ins.write(weights)
    return weights


@pytest.fixture(scope="session")
def golden_weights(cache: Path) -> Path:
    """A folder with checkpoints that hold the golden fill, in the official formats."""
    from tests.support.golden_weights import write_golden_weights

    weights = cache / "golden-weights"
    weights.mkdir(parents=True, exist_ok=True)
    write_golden_weights(weights)
    return weights


@pytest.fixture(scope="session")
def repository(cache: Path, stand_in_weights: Path) -> Path:
    """A complete model repository of the stand-ins."""
    return _build(stand_in_weights, cache / "repository")


@pytest.fixture(scope="session")
def golden_repository(cache: Path, golden_weights: Path) -> Path:
    """A complete model repository of the golden fill."""
    return _build(golden_weights, cache / "golden-repository")


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model repository whose nets are tiny graphs that behave as the stand-ins do."""
    from tests.support import tiny_repository

    folder = tmp_path_factory.mktemp("tiny") / "repository"
    tiny_repository.write(folder)
    return folder


@pytest.fixture(scope="session")
def triton(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running server with every model, over tiny nets: for tests that do not judge the nets' numbers."""
    yield from _serve(tiny_repository, tmp_path_factory)


@pytest.fixture(scope="session")
def stand_in_triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running server with every model, over the true networks filled as stand-ins; it takes 2 GB."""
    yield from _serve(repository, tmp_path_factory)


@pytest.fixture(scope="module")
def golden_triton(golden_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running server with every model, on the golden fill; for one module only, it takes 2 GB."""
    yield from _serve(golden_repository, tmp_path_factory)


def _build(weights: Path, repository: Path) -> Path:
    from export.build.repository import BuildOptions, build_repository
    from export.variants import Format, Precision

    # what is made in seconds; the other variants have tests of their own
    options = BuildOptions(format=Format.ONNX, precision=Precision.FP32, keep=0, timing=False)
    build_repository(weights, repository, options=options)
    if list(repository.glob("*/[2-9]")):  # a kept one, made anew by newer code: tests count from version 1
        shutil.rmtree(repository)
        build_repository(weights, repository, options=options)
    return repository


def _serve(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("triton")
    with Triton(repository, log=folder / "triton.log", env=job_env(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway process in front of the session's live Triton."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), triton.grpc_address) as running:
        yield running
