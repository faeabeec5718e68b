"""Which GPU the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.errors import ExportError
from export.plans.machine import Gpu, identify
from tests.support.fake_trtexec import write_nvidia_smi

H100 = "NVIDIA H100 80GB HBM3, 9.0"


@pytest.mark.parametrize("count", [1, 8])
def test_gpus_of_one_kind_are_that_kind(tmp_path: Path, count: int) -> None:
    gpu = identify(write_nvidia_smi(tmp_path / "nvidia-smi", *[H100] * count))
    assert gpu == Gpu("NVIDIA H100 80GB HBM3", "9.0")
    assert str(gpu) == "NVIDIA H100 80GB HBM3 (compute capability 9.0)"


def test_gpus_of_several_kinds_are_an_error_that_names_them(tmp_path: Path) -> None:
    program = write_nvidia_smi(tmp_path / "nvidia-smi", H100, "NVIDIA L4, 8.9")
    with pytest.raises(ExportError, match=r"several kinds: NVIDIA H100 .*, NVIDIA L4 .*only one of them"):
        identify(program)


def test_without_a_gpu_the_error_says_where_plans_are_built(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no GPU: .*nvidia-smi is missing; plans are built where they run"):
        identify(str(tmp_path / "nvidia-smi"))
    with pytest.raises(ExportError, match="lists none"):
        identify(write_nvidia_smi(tmp_path / "nvidia-smi", ""))


def test_a_driver_that_does_not_work_is_quoted(tmp_path: Path) -> None:
    program = write_nvidia_smi(tmp_path / "nvidia-smi", "Failed to initialize NVML:", "Driver mismatch", status=18)
    with pytest.raises(ExportError, match=r"no GPU: .* says: Failed to initialize NVML: Driver mismatch;"):
        identify(program)
