"""Which providers onnxruntime gets on a GPU, for several kinds of installations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from export.triton_config import model_config
from export.variants import Format, Precision, Profile, Variant
from lipsync import tensors
from lipsync.tensors import Model
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.onnx_providers import (
    CPU,
    CPU_PACKAGE,
    CUDA,
    GPU_PACKAGE,
    TENSORRT,
    GpuRun,
    Installed,
    Provider,
    check_loaded,
    gpu_providers,
)

ALL = (TENSORRT, CUDA, CPU)
GPU_ONLY = Installed(ALL)
WITH_TENSORRT = Installed(ALL, tensorrt=True)
BOTH = (CPU_PACKAGE, GPU_PACKAGE)
ONNX_FP16 = Variant(Format.ONNX, Precision.FP16)


def backend_config(model: Model, **parameters: str) -> BackendConfig:
    """Return what the backend sees of the exported configuration on a GPU."""
    config = model_config.config(model, {"precision": "fp16"} | parameters, variant=ONNX_FP16, profile=Profile.GPU)
    text = json_format.MessageToJson(config, preserving_proto_field_name=True)
    served = {"max_batch_size": 0} | json.loads(text)  # Triton writes zeros, too
    args = {"model_name": model.name, "model_repository": "", "model_version": "1"}
    return BackendConfig(args | {"model_config": json.dumps(served)})


def options(run: GpuRun, installed: Installed, provider: str) -> dict[str, str]:
    return dict(gpu_providers(run, installed))[provider]


def test_cuda_runs_a_network_where_tensorrt_is_not_installed() -> None:
    ((name, given),) = gpu_providers(GpuRun(device=3, shapes={"face": (96, 96, 3)}), GPU_ONLY)
    assert name == CUDA
    assert given["device_id"] == "3"
    assert given["cudnn_conv_algo_search"] == "HEURISTIC"  # no search for each new shape
    assert "gpu_mem_limit" not in given


def test_tensorrt_comes_first_where_it_is_installed_and_the_inputs_have_one_size(tmp_path: Path) -> None:
    run = GpuRun(device=1, shapes={"face": (96, 96, 3), "mel": (80, 16)}, half=True, engines=tmp_path / "engines")
    assert [name for name, _ in gpu_providers(run, WITH_TENSORRT)] == [TENSORRT, CUDA]
    given = options(run, WITH_TENSORRT, TENSORRT)
    assert given["trt_profile_min_shapes"] == "face:1x96x96x3,mel:1x80x16"
    assert given["trt_profile_opt_shapes"] == "face:64x96x96x3,mel:64x80x16"
    assert given["trt_profile_max_shapes"] == "face:256x96x96x3,mel:256x80x16"
    assert (given["device_id"], given["trt_fp16_enable"], given["trt_engine_cache_enable"]) == ("1", "1", "1")
    assert Path(given["trt_engine_cache_path"]).stat().st_mode & 0o777 == 0o700  # code is loaded from there


def test_tensorrt_is_left_out_where_its_engine_would_not_fit_or_it_is_not_wanted() -> None:
    for run in (GpuRun(), GpuRun(shapes={"face": (96, 96, 3)}, choice="cuda")):
        assert [name for name, _ in gpu_providers(run, WITH_TENSORRT)] == [CUDA]


@pytest.mark.parametrize(
    ("installed", "shapes", "reason"),
    [
        (GPU_ONLY, {"face": (96, 96, 3)}, "TensorRT is not installed; install the package `tensorrt`"),
        (Installed((CUDA, CPU), tensorrt=True), {"face": (96, 96, 3)}, "TensorRT is not installed"),
        (WITH_TENSORRT, None, "the sizes of the inputs vary"),
    ],
)
def test_tensorrt_that_is_asked_for_and_cannot_be_had_is_an_error(
    installed: Installed, shapes: dict[str, tuple[int, ...]] | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        gpu_providers(GpuRun(choice="tensorrt", shapes=shapes), installed)


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ((CPU_PACKAGE,), "onnxruntime supports only CPUs: pip uninstall"),
        (BOTH, "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: pip uninstall"),
        ((), "this onnxruntime has no CUDA provider"),
    ],
)
def test_a_gpu_that_onnxruntime_cannot_use_is_an_error_that_says_what_to_install(
    packages: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"^KIND_GPU is configured, but {reason}.*docs/guide/gpu\.md"):
        gpu_providers(GpuRun(), Installed((CPU,), packages))


def test_the_log_says_what_was_loaded() -> None:
    wanted: list[Provider] = [(TENSORRT, {}), (CUDA, {})]
    assert check_loaded(GpuRun(), wanted, ALL, WITH_TENSORRT) == "with TensorRT and CUDA"
    assert check_loaded(GpuRun(), [(CUDA, {})], [CUDA, CPU], GPU_ONLY) == "with CUDA"
    with pytest.raises(ValueError, match="its libraries cannot be loaded; install the package `tensorrt`"):
        check_loaded(GpuRun(choice="tensorrt"), wanted, [CUDA, CPU], WITH_TENSORRT)
    text = check_loaded(GpuRun(), wanted, [CUDA, CPU], WITH_TENSORRT)
    assert text == "with CUDA, not with TensorRT, whose libraries cannot be loaded"


def test_a_network_never_falls_back_to_the_cpu_unnoticed() -> None:
    with pytest.raises(ValueError, match=r"cannot load its CUDA provider: there is no GPU here.*nvidia-smi") as raised:
        check_loaded(GpuRun(), [(CUDA, {})], [CPU], GPU_ONLY)
    assert "both" not in str(raised.value)
    with pytest.raises(ValueError, match="are both installed"):
        check_loaded(GpuRun(), [(CUDA, {})], [CPU], Installed(ALL, BOTH))


def test_the_exported_configurations_say_what_a_network_needs() -> None:
    wav2lip = GpuRun.of(backend_config(tensors.WAV2LIP), 0)
    assert dict(wav2lip.shapes or {}) == {"face": (96, 96, 3), "mel": (80, 16)}
    assert (wav2lip.max_batch, wav2lip.half, wav2lip.search) == (256, True, "HEURISTIC")
    assert GpuRun.of(backend_config(tensors.S3FD), 0).shapes is None
    segmentation = GpuRun.of(backend_config(tensors.SEGMENTATION), 0)
    assert options(segmentation, GPU_ONLY, CUDA)["gpu_mem_limit"] == str(4 << 30)


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        ("execution_provider", "rocm", "auto or cuda or tensorrt expected"),
        ("cudnn_conv_algo_search", "3", r"0 \(EXHAUSTIVE\), 1 \(HEURISTIC\), 2 \(DEFAULT\) expected, got 3"),
        ("arena_extend_strategy", "x", "a number expected"),
    ],
)
def test_a_parameter_of_another_value_is_an_error(parameter: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {parameter}: {reason}"):
        GpuRun.of(backend_config(tensors.WAV2LIP, **{parameter: value}), 0)


def test_this_environment_has_one_onnxruntime() -> None:
    import onnxruntime

    installed = Installed.find(onnxruntime.get_available_providers())
    assert installed.packages == ([GPU_PACKAGE] if CUDA in installed.providers else [CPU_PACKAGE])
