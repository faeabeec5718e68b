from __future__ import annotations

import contextlib
from itertools import product
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from export.triton_config import model_config, profiles
from export.variants import Format, Precision, Profile, Variant, resolve
from lipsync import tensors
from lipsync.tensors import MODELS, Model

COMMITTED = Path(__file__).parents[3] / "model_repository"
NETS = ("s3fd", "wav2lip", "wav2lip_gan", "segmentation")
ENSEMBLES = ("detect_faces", "lipsync", "lipsync_gan", "lipsync_clip")

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def parse(text: str) -> pb.ModelConfig:
    return text_format.Parse(text, pb.ModelConfig())


def parsed(name: str) -> pb.ModelConfig:
    return parse(model_config.render(next(model for model in MODELS if model.name == name)))


@every_model
def test_a_config_has_the_tensors_of_the_table(model: Model) -> None:
    config = parse(model_config.render(model))
    assert (config.name, config.max_batch_size) == (model.name, model.max_batch_size)
    for config_tensors, table in ((config.input, model.inputs), (config.output, model.outputs)):
        tensors_of_config = [(t.name, pb.DataType.Name(t.data_type), tuple(t.dims)) for t in config_tensors]
        assert tensors_of_config == [(t.name, f"TYPE_{t.dtype.replace('BYTES', 'STRING')}", t.shape) for t in table]
    assert [t.optional for t in config.input] == [t.optional for t in model.inputs]


@every_model
def test_the_committed_config_is_the_generated_one(model: Model) -> None:
    assert (COMMITTED / model.name / "config.pbtxt").read_text("utf-8") == model_config.render(model)


@every_model
def test_the_committed_repository_has_a_version_directory_for_every_model(model: Model) -> None:
    assert (COMMITTED / model.name / "1").is_dir()


@every_model
def test_a_config_says_that_it_is_generated(model: Model) -> None:
    assert model_config.render(model).startswith("# Generated from lipsync/tensors.py by `python -m export configs`")


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_connects_every_tensor(name: str) -> None:
    config = parsed(name)
    assert config.platform == "ensemble"
    table = {model.name: model for model in MODELS}
    ready = {t.name: pb.DataType.Name(t.data_type).removeprefix("TYPE_") for t in config.input}
    used: set[str] = set()
    for step in config.ensemble_scheduling.step:
        model = table[step.model_name]
        types = {t.name: t.dtype for t in (*model.inputs, *model.outputs)}
        assert set(step.input_map) == {t.name for t in model.inputs}
        assert set(step.output_map) <= {t.name for t in model.outputs}
        for inner, outer in step.input_map.items():
            assert ready[outer] == types[inner], f"{model.name}.{inner} reads {outer} before a step writes it"
            used.add(outer)
        for inner, outer in step.output_map.items():
            assert outer not in ready, f"{outer} is written twice: no call to such an ensemble succeeds"
            ready[outer] = types[inner]
    results = {t.name for t in config.output}
    assert results <= set(ready)
    assert used | results == set(ready), "no step reads a tensor"


def variants() -> list[tuple[Profile, Variant]]:
    """Return every variant of every profile that the exporter supports."""
    supported = []
    for profile, format, precision in product(Profile, Format, Precision):
        with contextlib.suppress(ExportError):
            supported += [(profile, variant) for variant in resolve(profile, format, precision)]
    return supported


every_variant = pytest.mark.parametrize(("profile", "variant"), variants(), ids=str)


@every_variant
@pytest.mark.parametrize("name", NETS)
def test_every_variant_of_a_net_has_the_same_tensors_and_is_warm_before_it_is_ready(
    name: str, profile: Profile, variant: Variant
) -> None:
    model = next(model for model in MODELS if model.name == name)
    config = parse(model_config.render(model, {"checkpoint": "real"}, variant=variant, profile=profile))
    plain = parsed(name)
    assert (config.name, list(config.input), list(config.output)) == (name, list(plain.input), list(plain.output))
    backend = {"onnx": "onnxruntime", "torchscript": "pytorch", "openvino": "openvino"}[variant.format]
    assert (config.backend, config.default_model_filename) == (backend, variant.format.file)
    assert config.max_batch_size >= model.max_batch_size  # callers rely on the table's value
    assert all(size <= config.max_batch_size for size in config.dynamic_batching.preferred_batch_size)
    (group,) = config.instance_group
    assert pb.ModelInstanceGroup.Kind.Name(group.kind) == ("KIND_CPU" if profile is Profile.CPU else "KIND_GPU")
    assert config.parameters["checkpoint"].string_value == "real"
    for sample in config.model_warmup:
        shapes = {t.name: tuple(t.dims) for t in config.input}
        assert set(sample.inputs) == set(shapes)
        for tensor, value in sample.inputs.items():
            assert -1 not in value.dims
            assert all(expected in (-1, actual) for expected, actual in zip(shapes[tensor], value.dims, strict=True))
    assert {sample.batch_size for sample in config.model_warmup} >= {1}
    assert all(sample.batch_size <= max(1, config.max_batch_size) for sample in config.model_warmup)


@pytest.mark.parametrize("name", NETS)
def test_tensorrt_builds_fp16_engines_once_for_the_batches_that_are_served(name: str) -> None:
    model = next(model for model in MODELS if model.name == name)
    config = parse(model_config.render(model, profile=Profile.TENSORRT))
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if name == "segmentation":
        assert not accelerators
        return
    (accelerator,) = accelerators
    assert accelerator.name == "tensorrt"
    said = accelerator.parameters
    assert (said["precision_mode"], said["trt_engine_cache_enable"]) == ("FP16", "1")
    assert said["trt_engine_cache_path"] == profiles.ENGINE_CACHE
    for bound in ("min", "opt", "max"):
        shapes = dict(entry.split(":") for entry in said[f"trt_profile_{bound}_shapes"].split(","))
        assert set(shapes) == {tensor.name for tensor in model.inputs}
        for tensor in model.inputs:
            batch, *sizes = map(int, shapes[tensor.name].split("x"))
            assert batch == {"min": 1, "max": config.max_batch_size}.get(bound, batch)
            assert all(expected in (-1, actual) for expected, actual in zip(tensor.shape, sizes, strict=True))
    largest = dict(entry.split(":") for entry in said["trt_profile_max_shapes"].split(","))
    for sample in config.model_warmup:  # otherwise the first request would build an engine
        for tensor, value in sample.inputs.items():
            bounds = list(map(int, largest[tensor].split("x")))
            assert all(have <= most for have, most in zip((sample.batch_size, *value.dims), bounds, strict=True))


def test_only_a_tensorrt_profile_has_an_accelerator() -> None:
    for profile in (Profile.CPU, Profile.GPU):
        config = parse(model_config.render(tensors.WAV2LIP, profile=profile))
        assert not config.HasField("optimization")


def test_nvidias_openvino_backend_may_pad_batches() -> None:
    config = parse(model_config.render(tensors.WAV2LIP, variant=Variant(Format.OPENVINO, Precision.FP32)))
    assert config.parameters["ENABLE_BATCH_PADDING"].string_value == "YES"


def test_the_nets_of_the_frames_batch_across_requests_and_the_others_do_not() -> None:
    batching = {model.name for model in MODELS if parse(model_config.render(model)).HasField("dynamic_batching")}
    assert batching == {"s3fd", "wav2lip", "wav2lip_gan"}
    assert parsed("wav2lip").dynamic_batching.max_queue_delay_microseconds == 2000


def test_the_other_models_are_python_on_the_cpu() -> None:
    names = {model.name for model in MODELS} - {*NETS, *ENSEMBLES}
    assert names == {"mel_spectrogram", "face_nms", "face_crop", "face_paste", "avatar", "live"}
    for name in names:
        (group,) = parsed(name).instance_group
        assert parsed(name).backend == "python"
        assert group.kind == pb.ModelInstanceGroup.KIND_CPU


def test_live_sessions_have_several_processes_with_a_gpu() -> None:
    """One Python process is enough for networks on two CPU cores, but not for a GPU, which is 100 times faster."""
    counts = {
        profile: model_config.config(tensors.LIVE, profile=profile).instance_group[0].count for profile in Profile
    }
    assert counts == {Profile.CPU: 1, Profile.GPU: 4, Profile.TENSORRT: 4}


def test_parameters_are_added_to_a_config() -> None:
    config = parse(model_config.render(tensors.WAV2LIP, {"checkpoint": "stand-in"}))
    assert config.parameters["checkpoint"].string_value == "stand-in"
    assert "checkpoint" not in parsed("wav2lip").parameters


@every_model
def test_every_model_has_the_version_of_the_table(model: Model) -> None:
    assert parsed(model.name).parameters["api_version"].string_value == tensors.API_VERSION


@every_model
def test_the_models_that_stream_are_decoupled_and_those_with_sessions_have_sequences(model: Model) -> None:
    config = parsed(model.name)
    assert config.model_transaction_policy.decoupled == model.streams
    assert config.HasField("sequence_batching") == model.sequences
    if model.sequences:
        # the model keeps its sessions in Triton's table; a stop has to wait until Triton has forgotten the others
        assert 2e6 <= config.sequence_batching.max_sequence_idle_microseconds <= 5e6


def test_writing_changes_only_what_differs(tmp_path: Path) -> None:
    assert len(model_config.write(tmp_path)) == len(MODELS)
    assert model_config.write(tmp_path) == []
    changed = tmp_path / "wav2lip" / "config.pbtxt"
    changed.write_text(changed.read_text().replace("max_batch_size: 32", "max_batch_size: 33"))
    difference = model_config.differences(tmp_path)
    assert "-max_batch_size: 33" in difference
    assert "+max_batch_size: 32" in difference
    assert model_config.write(tmp_path) == [changed]
    assert model_config.differences(tmp_path) == ""


def test_a_missing_config_is_a_difference(tmp_path: Path) -> None:
    model_config.write(tmp_path)
    (tmp_path / "lipsync" / "config.pbtxt").unlink()
    assert "lipsync/config.pbtxt" in model_config.differences(tmp_path)
