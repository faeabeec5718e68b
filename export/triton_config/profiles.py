"""How the networks are served on each kind of machine: instances, batches, queue delays, warm-up, plans.

There is one `ServingProfile` per profile and network; `model_config` turns it into a ModelConfig protobuf. Why the
numbers are what they are: docs/adr/0034-batches-on-a-gpu.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from lipsync import tensors
from lipsync.limits import MIN_DETECTION_SIDE
from lipsync.triton.buckets import BUCKETS, buckets_up_to

from ..variants import Profile

# Runs per size before the model is ready: TorchScript compiles at the second run of a size, and uses it at the third.
WARM_UP_RUNS = 3
Size = tuple[int, ...]
Shapes = Mapping[str, Size]  # input name to its shape, with the batch in front


@dataclass(frozen=True)
class PlanProfile:
    """The shapes that TensorRT optimizes one optimization profile of a plan for.

    Attributes:
        smallest, usual, largest: input name to shape. A batch outside the ranges of all profiles is an error.
    """

    smallest: Shapes
    usual: Shapes
    largest: Shapes


@dataclass(frozen=True)
class ServingProfile:
    """How one network is served.

    Attributes:
        kind: the device of its instances.
        instances: number of instances per device: with two, one copies while the other computes. Networks in
            TorchScript have one: our backend does both in one process, and a second process would only take turns.
        max_batch_size: largest batch of one run, at least the table's, which callers rely on. None means the table's.
        queue_delay_us: how long a request waits for others to join its batch; None if the network does not batch.
        warm_up: batch sizes that are run on zeros before the model is ready.
        warm_up_runs: how often each of them is run.
        sizes: input name to shape in the warm-up, for inputs whose shape varies.
        memory_limit: bytes of GPU memory for the activations in onnxruntime; None means no limit.
    """

    kind: Literal["KIND_CPU", "KIND_GPU"]
    instances: int = 1
    max_batch_size: int | None = None
    queue_delay_us: int | None = None
    warm_up: tuple[int, ...] = (1,)
    warm_up_runs: int = 1
    sizes: Shapes = field(default_factory=dict)
    memory_limit: int | None = None


_LIVE = tensors.LIVE_NETWORKS
_SMALL_IMAGE = {"image": (240, 320, 3)}
_SEGMENTED_IMAGE = {"image": (384, 512, 3)}

# One wav2lip window is 8 GFLOP (3 to 45 ms on two CPU cores), so a queue delay of 2 ms costs little and fills batches.
# s3fd has smaller batches and takes longer per image. One instance: a network uses all cores by itself; Triton's
# default of two instances would split them and double the memory.
_CPU = {
    tensors.S3FD.name: ServingProfile("KIND_CPU", queue_delay_us=1000, sizes=_SMALL_IMAGE),
    tensors.WAV2LIP.name: ServingProfile("KIND_CPU", queue_delay_us=2000, warm_up=(1, tensors.WAV2LIP_BATCH)),
    # only where the exporter is asked for it: the process takes 0.3 GB, and shares the cores with the other one
    _LIVE[tensors.WAV2LIP.name].name: ServingProfile("KIND_CPU", queue_delay_us=0),
    tensors.SEGMENTATION.name: ServingProfile("KIND_CPU", sizes=_SEGMENTED_IMAGE),
}
# On a GPU a window takes less than 0.1 ms, so only large batches use it fully: on an H100 batches of 256 gave twice the
# frames per second of batches of 32. A batch of 256 takes about 10 ms, so 2.5 ms of waiting for it cost little.
_WAV2LIP_GPU = ServingProfile(
    "KIND_GPU",
    instances=2,
    max_batch_size=BUCKETS[-1],
    queue_delay_us=2500,
    warm_up=BUCKETS,
    warm_up_runs=WARM_UP_RUNS,
)
# No delay: a session waits for its frames. What arrives during a run shares the next one.
_WAV2LIP_LIVE = replace(
    _WAV2LIP_GPU,
    instances=1,
    max_batch_size=tensors.WAV2LIP_BATCH,
    queue_delay_us=0,
    warm_up=buckets_up_to(tensors.WAV2LIP_BATCH),
)
_S3FD_GPU = ServingProfile(
    "KIND_GPU",
    instances=2,
    max_batch_size=16,
    queue_delay_us=1000,
    warm_up=buckets_up_to(16),
    warm_up_runs=WARM_UP_RUNS,
    sizes=_SMALL_IMAGE,
)
# onnxruntime's memory never shrinks, and it shares the card with the other networks.
_SEGMENTATION_GPU = ServingProfile("KIND_GPU", warm_up_runs=WARM_UP_RUNS, sizes=_SEGMENTED_IMAGE, memory_limit=4 << 30)
_GPU = {
    tensors.S3FD.name: _S3FD_GPU,
    tensors.WAV2LIP.name: _WAV2LIP_GPU,
    _LIVE[tensors.WAV2LIP.name].name: _WAV2LIP_LIVE,
    tensors.SEGMENTATION.name: _SEGMENTATION_GPU,
}


def _with_gan(services: Mapping[str, ServingProfile]) -> Mapping[str, ServingProfile]:
    """Serve the networks of wav2lip_gan, which differs from wav2lip in its weights only, in the same way."""
    twins = {
        tensors.WAV2LIP.name: tensors.WAV2LIP_GAN.name,
        _LIVE[tensors.WAV2LIP.name].name: _LIVE[tensors.WAV2LIP_GAN.name].name,
    }
    return {**services, **{twins[name]: services[name] for name in twins if name in services}}


PROFILES: Mapping[Profile, Mapping[str, ServingProfile]] = {
    profile: _with_gan(_CPU if profile is Profile.CPU else _GPU) for profile in Profile
}


def _faces(smallest: int, usual: int, largest: int) -> PlanProfile:
    """Return an optimization profile of wav2lip from its batch sizes."""
    batches = (smallest, usual, largest)
    return PlanProfile(*({tensor.name: (n, *tensor.shape) for tensor in tensors.WAV2LIP.inputs} for n in batches))


def _images(usual: Size, largest: Size) -> PlanProfile:
    """Return an optimization profile of s3fd from the number, height and width of its images."""
    (image,) = tensors.S3FD.inputs
    smallest = (1, MIN_DETECTION_SIDE, MIN_DETECTION_SIDE)
    return PlanProfile(*({image.name: (*size, 3)} for size in (smallest, usual, largest)))


_FACES = (_faces(1, 8, 16), _faces(17, 64, 64), _faces(65, 256, 256))
# What a TensorRT plan is built for, by the name of the served model. s3fd: small images and regions, images of 1080p
# in the number that callers may send, single images up to 4K; each upright too.
PLAN_PROFILES: Mapping[str, tuple[PlanProfile, ...]] = {
    tensors.S3FD.name: (
        _images((8, 384, 384), (16, 1024, 1024)),
        _images((1, 720, 1280), (tensors.S3FD_BATCH, 1920, 1920)),
        _images((1, 2160, 3840), (1, 3840, 3840)),
    ),
    **{net.name: _FACES for net in (tensors.WAV2LIP, tensors.WAV2LIP_GAN)},
    **{net.name: _FACES for net in _LIVE.values()},  # the same files
}
# Batch sizes of wav2lip that a plan has CUDA graphs for, with the smallest batch that is filled up to each. No batch is
# filled up across the end of an optimization profile.
PLAN_GRAPHS = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256))
