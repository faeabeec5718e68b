"""Fixtures: the two networks with the golden weights, and their exports to ONNX."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.checkpoints.provenance import Provenance
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.variants import ONNX_FP32
from tests.support.golden_exports import GoldenBuilder


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
