from __future__ import annotations

import contextlib
from itertools import product
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from export.triton_config import model_config
from export.triton_config.profiles import PLAN_PROFILES
from export.variants import ONNX_FP32, Format, Precision, Profile, Variant, resolve
from lipsync import tensors
from lipsync.tensors import LIVE_NETWORKS, MODELS, WAV2LIP_BATCH, Model
from lipsync.triton.buckets import buckets_up_to

COMMITTED = Path(__file__).parents[3] / "model_repository"
NETS = ("s3fd", "wav2lip", "wav2lip_gan", "segmentation")
GPU_NETS = (*NETS, "wav2lip_live", "wav2lip_gan_live")
TABLE = {model.name: model for model in (*MODELS, *LIVE_NETWORKS.values())}
FP16 = Precision.FP16
ENSEMBLES = ("detect_faces", "lipsync", "lipsync_gan", "lipsync_clip")

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def parse(text: str) -> pb.ModelConfig:
    return text_format.Parse(text, pb.ModelConfig())


def parsed(name: str) -> pb.ModelConfig:
    return parse(model_config.render(TABLE[name]))


def on_gpu(name: str, format: Format = Format.TORCHSCRIPT) -> pb.ModelConfig:
    return parse(model_config.render(TABLE[name], variant=Variant(format, FP16), profile=Profile.GPU))


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
    model = TABLE[name]
    if model is tensors.SEGMENTATION:
        variant = ONNX_FP32  # its only one
    config = parse(model_config.render(model, {"checkpoint": "real"}, variant=variant, profile=profile))
    plain = parsed(name)
    assert (config.name, list(config.input), list(config.output)) == (name, list(plain.input), list(plain.output))
    backend = {"onnx": "onnxruntime", "torchscript": "pytorch"}.get(variant.format, variant.format.value)
    assert (config.backend, config.default_model_filename) == (backend, variant.format.file)
    assert config.max_batch_size >= model.max_batch_size  # callers rely on the table's value
    assert not config.dynamic_batching.preferred_batch_size  # such a batch would be run although a larger one is near
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


@pytest.mark.parametrize("format", [Format.ONNX, Format.TORCHSCRIPT, Format.TENSORRT])
@pytest.mark.parametrize("name", GPU_NETS)
def test_a_gpu_is_warm_in_every_batch_size_before_it_is_ready(name: str, format: Format) -> None:
    config = on_gpu(name, format) if name != "segmentation" else on_gpu(name, Format.ONNX)
    sizes = buckets_up_to(max(1, config.max_batch_size))
    assert [(sample.batch_size, sample.count) for sample in config.model_warmup] == [(size, 3) for size in sizes]


def test_a_gpu_waits_for_full_batches_but_not_for_live_sessions() -> None:
    bulk, live = on_gpu("wav2lip"), on_gpu("wav2lip_live")
    assert (bulk.max_batch_size, bulk.dynamic_batching.max_queue_delay_microseconds) == (256, 2500)
    assert (live.max_batch_size, live.dynamic_batching.max_queue_delay_microseconds) == (WAV2LIP_BATCH, 0)
    assert live.HasField("dynamic_batching")
    assert on_gpu("wav2lip_gan_live").dynamic_batching == live.dynamic_batching


@pytest.mark.parametrize("net", LIVE_NETWORKS.values(), ids=lambda net: net.name)
def test_the_network_for_live_has_the_tensors_of_its_generator_and_is_not_public(net: Model) -> None:
    generator = TABLE[net.name.removesuffix("_live")]
    assert (net.inputs, net.outputs, net.max_batch_size) == (generator.inputs, generator.outputs, WAV2LIP_BATCH)
    assert net not in MODELS
    on_cpu = parsed(net.name)
    assert on_cpu.dynamic_batching.max_queue_delay_microseconds == 0
    assert on_cpu.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU


def test_no_queue_refuses_requests_because_an_ensemble_would_then_hang() -> None:
    for name in GPU_NETS:
        batching = on_gpu(name).dynamic_batching
        assert not batching.HasField("default_queue_policy")
        assert batching.priority_levels == 0


def test_onnxruntime_on_a_gpu_searches_no_kernels_for_new_shapes_and_leaves_memory_to_others() -> None:
    for name in GPU_NETS:
        parameters = {key: value.string_value for key, value in on_gpu(name, Format.ONNX).parameters.items()}
        assert (parameters["cudnn_conv_algo_search"], parameters["arena_extend_strategy"]) == ("1", "1")
        assert ("gpu_mem_limit" in parameters) == (name == "segmentation")
    assert set(parsed("s3fd").parameters) == {"api_version"}  # nothing of it on a CPU


def test_torchscript_on_a_gpu_has_one_process_that_copies_while_it_computes() -> None:
    for name in ("s3fd", "wav2lip"):
        assert on_gpu(name).instance_group[0].count == 1
        assert on_gpu(name, Format.ONNX).instance_group[0].count == 2
    assert on_gpu("wav2lip", Format.TENSORRT).instance_group[0].count == 2
    assert on_gpu("wav2lip").parameters["ENABLE_WEIGHT_SHARING"].string_value == "true"


def plan_batches(config: pb.ModelConfig) -> set[int]:
    """Return the batch sizes that an optimization profile of the configuration allows, for inputs of one size."""
    (group,) = config.instance_group
    chosen = [PLAN_PROFILES[config.name][int(index)] for index in group.profile]
    first = config.input[0].name
    return {n for each in chosen for n in range(each.smallest[first][0], each.largest[first][0] + 1)}


@pytest.mark.parametrize("name", ["wav2lip", "wav2lip_gan", "wav2lip_live", "wav2lip_gan_live"])
def test_a_plan_of_wav2lip_has_a_profile_and_a_graph_for_every_batch(name: str) -> None:
    config = on_gpu(name, Format.TENSORRT)
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    every = set(range(1, config.max_batch_size + 1))
    assert every <= plan_batches(config)
    cuda = config.optimization.cuda
    assert cuda.graphs and cuda.busy_wait_events and cuda.output_copy_stream and config.optimization.eager_batching
    filled: list[int] = []
    for graph in cuda.graph_spec:
        assert graph.batch_size <= config.max_batch_size
        filled += range(graph.graph_lower_bound.batch_size, graph.batch_size + 1)
        for shapes in (graph.input, graph.graph_lower_bound.input):
            assert {key: tuple(shape.dim) for key, shape in shapes.items()} == {
                tensor.name: tensor.shape for tensor in TABLE[name].inputs
            }
        # all batches that are filled up to this size are in one profile, so the context that has the graph runs them
        profiles = [
            index
            for index, each in enumerate(PLAN_PROFILES[name])
            if each.smallest["face"][0] <= graph.graph_lower_bound.batch_size
            and graph.batch_size <= each.largest["face"][0]
        ]
        assert len(profiles) == 1
    assert sorted(filled) == sorted(every)


def test_a_plan_of_s3fd_merges_no_requests_and_takes_every_image_of_the_job() -> None:
    config = on_gpu("s3fd", Format.TENSORRT)
    assert not config.HasField("dynamic_batching")  # two images of 4K in one batch would fit no profile
    assert not config.optimization.cuda.graphs
    assert config.parameters["execution_context_allocation_strategy"].string_value == "ON_PROFILE_CHANGE"
    (group,) = config.instance_group
    assert (group.count, list(group.profile)) == (1, ["0", "1", "2"])
    ranges = [(each.smallest["image"], each.largest["image"]) for each in PLAN_PROFILES["s3fd"]]
    for image in ((16, 480, 640), (4, 1080, 1920), (4, 1920, 1080), (1, 2160, 3840), (1, 3840, 2160), (1, 32, 32)):
        shape = (*image, 3)
        assert any(all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)) for low, high in ranges), image


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
    for cores, expected in ((2, 2), (16, 8), (256, 32)):
        assert instances(tensors.LIVE, Profile.GPU, cores) == expected
        assert instances(tensors.LIVE, Profile.CPU, cores) == 1


@pytest.mark.parametrize("model", [tensors.FACE_CROP, tensors.FACE_PASTE, tensors.FACE_NMS, tensors.MEL_SPECTROGRAM])
def test_the_steps_of_ensembles_have_four_to_eight_processes_with_a_gpu(model: Model) -> None:
    assert [instances(model, Profile.GPU, cores) for cores in (2, 12, 64)] == [4, 6, 8]
    assert instances(model, Profile.CPU, 64) == 1


def test_the_whole_job_has_one_process_because_it_has_one_queue() -> None:
    assert instances(tensors.AVATAR, Profile.GPU, 64) == 1


def instances(model: Model, profile: Profile, cores: int) -> int:
    (group,) = model_config.config(model, profile=profile, cores=cores).instance_group
    return int(group.count)


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
