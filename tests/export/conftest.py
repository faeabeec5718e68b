"""Fixtures: the two networks with the golden weights, and their exports, which take ten seconds once."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.checkpoints.provenance import Provenance
from export.formats import onnx_export
from export.networks.inference import S3FDGraph, Wav2LipGraph
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from export.validation import samples
from lipsync import tensors
from tests.support.golden_weights import GOLDEN, golden_state


@pytest.fixture(scope="session")
def wav2lip_graph() -> Wav2LipGraph:
    net = Wav2Lip()
    net.load_state_dict(golden_state(GOLDEN / "wav2lip_state.json"))
    return Wav2LipGraph(net).eval()


@pytest.fixture(scope="session")
def s3fd_graph() -> S3FDGraph:
    net = S3FD()
    net.load_state_dict(golden_state(GOLDEN / "s3fd_state.json"))
    return S3FDGraph(net).eval()


@pytest.fixture(scope="session")
def provenance() -> Provenance:
    return Provenance(sha256="5" * 64, stand_in=True)


@pytest.fixture(scope="session")
def wav2lip_onnx(wav2lip_graph: Wav2LipGraph, provenance: Provenance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wav2lip") / "model.onnx"
    onnx_export.save(tensors.WAV2LIP, wav2lip_graph, samples.timing(tensors.WAV2LIP, 2), path, provenance)
    return path


@pytest.fixture(scope="session")
def s3fd_onnx(s3fd_graph: S3FDGraph, provenance: Provenance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s3fd") / "model.onnx"
    onnx_export.save(tensors.S3FD, s3fd_graph, samples.timing(tensors.S3FD, 2), path, provenance)
    return path
