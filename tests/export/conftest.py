"""Fixtures: the two networks with the golden weights, and their exports to ONNX."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from export.checkpoints.provenance import Provenance
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.variants import ONNX_FP32
from tests.support.golden_exports import GoldenBuilder


@pytest.fixture(scope="session", autouse=True)
def _hash_files_once() -> Iterator[None]:
    """Keep the hash of a file until it changes: each build hashes 800 MB of checkpoints and networks."""
    hashes: dict[tuple[object, ...], Any] = {}
    digest_of = hashlib.file_digest

    def file_digest(file: IO[bytes], digest: str) -> Any:
        status = os.fstat(file.fileno())
        key = (digest, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in hashes:
            hashes[key] = digest_of(file, digest)  # type: ignore[arg-type]
        return hashes[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashlib, "file_digest", file_digest)
        yield


@pytest.fixture(scope="session")
def wav2lip_graph(golden_builders: dict[str, GoldenBuilder]) -> Wav2LipGraph:
    graph = golden_builders["wav2lip"].graph
    assert isinstance(graph, Wav2LipGraph)
    return graph


@pytest.fixture(scope="session")
def s3fd_graph(golden_builders: dict[str, GoldenBuilder]) -> S3FDGraph:
    graph = golden_builders["s3fd"].graph
    assert isinstance(graph, S3FDGraph)
    return graph


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    return Provenance(sha256="5" * 64, stand_in=True)


@pytest.fixture(scope="session")
def wav2lip_onnx(golden_builders: dict[str, GoldenBuilder]) -> Path:
    return golden_builders["wav2lip"].file(ONNX_FP32)


@pytest.fixture(scope="session")
def s3fd_onnx(golden_builders: dict[str, GoldenBuilder]) -> Path:
    return golden_builders["s3fd"].file(ONNX_FP32)
