from __future__ import annotations

import pytest

from export.errors import ExportError
from export.variants import CPU_CANDIDATES, GPU_CANDIDATES, ONNX_FP32, Format, Precision, Profile, Variant, resolve


def test_a_cpu_has_several_candidates_by_default() -> None:
    assert resolve(Profile.CPU, None, None) == CPU_CANDIDATES
    assert ONNX_FP32 in CPU_CANDIDATES


def test_a_gpu_has_the_candidates_that_can_be_run_on_one_here() -> None:
    def formats(*on_gpu: Format) -> list[Format]:
        return [variant.format for variant in resolve(Profile.GPU, None, None, on_gpu)]

    assert formats(Format.ONNX, Format.TORCHSCRIPT) == [Format.TORCHSCRIPT, Format.ONNX]
    assert formats(Format.TORCHSCRIPT) == [Format.TORCHSCRIPT]
    assert all(variant.precision is Precision.FP16 for variant in GPU_CANDIDATES)
    assert resolve(Profile.GPU, Format.ONNX, None, [Format.TORCHSCRIPT]) == (Variant(Format.ONNX, Precision.FP16),)


@pytest.mark.parametrize(
    ("profile", "format", "precision", "expected"),
    [
        (Profile.CPU, Format.TORCHSCRIPT, None, Variant(Format.TORCHSCRIPT, Precision.FP32)),
        (Profile.CPU, Format.ONNX, Precision.INT8, Variant(Format.ONNX, Precision.INT8)),
        (Profile.CPU, None, Precision.INT8, Variant(Format.OPENVINO, Precision.INT8)),
        (Profile.CPU, None, Precision.FP16, Variant(Format.ONNX, Precision.FP16)),
        (Profile.GPU, None, None, Variant(Format.TORCHSCRIPT, Precision.FP16)),  # no GPU to race on
        (Profile.GPU, Format.TORCHSCRIPT, None, Variant(Format.TORCHSCRIPT, Precision.FP16)),
        (Profile.GPU, Format.TENSORRT, None, Variant(Format.TENSORRT, Precision.FP16)),
        (Profile.GPU, Format.TENSORRT, Precision.FP32, Variant(Format.TENSORRT, Precision.FP32)),
        (Profile.GPU, Format.ONNX, None, Variant(Format.ONNX, Precision.FP16)),
        (Profile.GPU, None, Precision.FP32, Variant(Format.TORCHSCRIPT, Precision.FP32)),
    ],
)
def test_a_missing_format_or_precision_follows_from_the_other_options(
    profile: Profile, format: Format | None, precision: Precision | None, expected: Variant
) -> None:
    assert resolve(profile, format, precision) == (expected,)


@pytest.mark.parametrize(
    ("profile", "format", "precision", "reason"),
    [
        (Profile.CPU, Format.TORCHSCRIPT, Precision.INT8, "torchscript has no int8 variant"),
        (Profile.GPU, Format.OPENVINO, None, "openvino runs on CPUs only"),
        (Profile.CPU, Format.TENSORRT, None, "tensorrt runs on GPUs only; use --profile gpu"),
        (Profile.GPU, Format.TENSORRT, Precision.INT8, "int8 is calibrated for CPUs"),
        (Profile.GPU, None, Precision.INT8, "int8 is calibrated for CPUs"),
    ],
)
def test_options_that_cannot_be_combined_are_rejected_with_the_reason(
    profile: Profile, format: Format | None, precision: Precision | None, reason: str
) -> None:
    with pytest.raises(ExportError, match=reason):
        resolve(profile, format, precision)


def test_a_plan_is_built_where_it_runs_from_the_onnx_file_that_is_exported() -> None:
    assert (Format.TENSORRT.backend, Format.TENSORRT.file) == ("tensorrt", "model.plan")
    assert Format.TENSORRT.exported_file == "model.onnx"
    for other in set(Format) - {Format.TENSORRT}:
        assert other.exported_file == other.file
