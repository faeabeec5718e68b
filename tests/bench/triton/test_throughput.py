"""The load test, on the CPU that every machine has; its figure means nothing here, its counts do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.triton import throughput
from lipsync.tensors import WAV2LIP_BATCH


def test_every_caller_is_answered_and_counted(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = throughput.measure(repository, requests=2, batch=2, seconds=0.5)
    assert (figure.device, figure.backend, figure.precision) == ("the CPU", "onnxruntime", "fp32")
    assert figure.frames_per_second > 0
    assert sum(figure.batches.values()) > 0
    assert set(figure.batches) <= {2, 4}  # a caller's own, or both callers' together
    throughput.report(figure, tmp_path / "gpu.json")
    assert "2 requests of 2 at once" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu.json").read_text())["requests"] == 2


def test_a_batch_that_the_export_does_not_take_is_refused_with_the_way_out(repository: Path) -> None:
    with pytest.raises(ValueError, match=rf"takes {WAV2LIP_BATCH} mouths at most.*--profile gpu"):
        throughput.measure(repository, requests=1, batch=WAV2LIP_BATCH + 1, seconds=0.1)
