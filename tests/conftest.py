"""Fixtures for all tests. The slow ones are created once per session, and only if a test uses them.

With AVATAR_TEST_CACHE=DIR the exported repositories are kept in DIR between runs, and only outdated models are
exported again.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded.server import Triton
from tests.support import workers
from tests.support.gateway_process import Gateway, gateway_process, job_gateway_process

if TYPE_CHECKING:
    from embedded.postgres import Postgres
    from tests.support.golden_exports import GoldenBuilder

ROOT = Path(__file__).parents[1]
CACHED_EXPORTS = 3  # that are kept in AVATAR_TEST_CACHE; one has 0.7 GB
pytest_plugins = ["tests.support.postgres", "tests.support.seaweedfs"]
# threads of PyTorch that wait for each other sleep, instead of taking the cores from the other test workers
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# without this module OpenVINO does not report its import over the network
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)  # runs before all other hooks, because pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark the tests by their slow fixtures, and decide on which worker of pytest-xdist they run."""
    workers.distribute(items)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector skip what collection makes: a million objects, an eighth of the suite's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def job_env(folder: Path) -> dict[str, str]:
    """Return the settings of the models that run whole jobs, with their files in `folder`; a fifth job has to wait."""
    (folder / "work").mkdir(exist_ok=True)
    return {
        "AVATAR_WORK_DIR": str(folder / "work"),
        "AVATAR_CACHE_DIR": str(folder / "cache"),
        "AVATAR_MAX_JOBS": "4",
    }


@pytest.fixture(scope="session")
def golden() -> Path:
    """Data computed by the original code."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The portrait and the speech that ship with the project."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for checkpoints and repositories of the tests."""
    kept = os.environ.get("AVATAR_TEST_CACHE")
    if not kept:
        yield tmp_path_factory.mktemp("exported")
        return
    folder = Path(kept).resolve() / _hash_of_export_inputs()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for old in sorted(folder.parent.glob("*/"), key=lambda path: path.stat().st_mtime)[:-CACHED_EXPORTS]:
        shutil.rmtree(old, ignore_errors=True)
    yield folder


def _hash_of_export_inputs() -> str:
    files = [path for package in ("export", "lipsync", "model_repository") for path in (ROOT / package).rglob("*.*")]
    files.append(ROOT / "requirements.lock")
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix != ".pyc" and path.is_file():
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let only one process at a time write into a folder that is kept between runs."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def stand_in_weights(cache: Path) -> Path:
    """A folder with the stand-in checkpoints."""
    from export import stand_ins  # PyTorch takes seconds to import, and most tests need none of it

    weights = cache / "stand-ins"
    with _alone(weights):
        stand_ins.write(weights)
    return weights


@pytest.fixture(scope="session")
def repository(cache: Path, stand_in_weights: Path) -> Path:
    """A complete model repository of the stand-ins."""
    return _build(stand_in_weights, cache / "repository")


@pytest.fixture(scope="session")
def golden_builders(stand_in_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, GoldenBuilder]:
    """The builders of `s3fd` and `wav2lip` with the golden weights: each variant is exported once per run."""
    from export.checkpoints.provenance import Provenance
    from lipsync.tensors import S3FD, WAV2LIP
    from tests.support.golden_exports import GoldenBuilder

    provenance = Provenance(sha256="5" * 64, stand_in=True)
    return {
        model.name: GoldenBuilder(model, provenance, stand_in_weights, tmp_path_factory.mktemp(model.name))
        for model in (S3FD, WAV2LIP)
    }


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model repository in which the networks are tiny graphs that behave like the stand-ins."""
    from tests.support import tiny_repository

    folder = tmp_path_factory.mktemp("tiny") / "repository"
    tiny_repository.write(folder)
    return folder


@pytest.fixture(scope="session")
def triton(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running server with all models and tiny networks, for tests that do not check the numbers of networks."""
    yield from _serve(tiny_repository, tmp_path_factory)


@pytest.fixture(scope="session")
def stand_in_triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running server with all models, networks of the real size and stand-in weights; it takes 2 GB."""
    yield from _serve(repository, tmp_path_factory)


def _build(weights: Path, repository: Path) -> Path:
    from export.build.repository import BuildOptions, build_repository
    from export.variants import Format, Precision
    from tests.support.quick_judge import few_samples, small_media

    # the variant that is exported in seconds; other tests cover the others
    with _alone(repository), few_samples():
        media = small_media(repository.parent / "media")
        options = BuildOptions(format=Format.ONNX, precision=Precision.FP32, media=media, keep=0, timing=False)
        build_repository(weights, repository, options=options)
    return repository


def _serve(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("triton")
    # HTTP is off by default, and some tests compare it with gRPC
    with Triton(repository, http_port=0, log=folder / "triton.log", env=job_env(folder)) as server:
        yield server
        server.wait(0.1)  # raises ServerDied if the server has died during the tests


@pytest.fixture(scope="session")
def gateway(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway process that uses the Triton of the session."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), triton.grpc_address, token=triton.token) as running:
        yield running


@pytest.fixture(scope="session")
def job_gateway(
    triton: Triton, postgres_server: Postgres, migrated_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway process that uses the Triton of the session, and takes jobs in and runs them."""
    from tests.support.postgres import fresh_database

    folder = tmp_path_factory.mktemp("jobs")
    with (
        fresh_database(postgres_server, migrated_database) as url,
        job_gateway_process(folder, triton.grpc_address, triton.token, url) as running,
    ):
        yield running
