"""How the nets are served on each kind of machine: instances, batches, waiting, accelerators, warm-up.

One description a profile and net; `configs` makes ModelConfig protobufs of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lipsync import tensors

from ..variants import Profile

# Where TensorRT keeps the engines that it has built: the build takes minutes, and is for one GPU and one file.
ENGINE_CACHE = "/var/cache/talking-avatar/tensorrt"
Size = tuple[int, ...]


@dataclass(frozen=True)
class TensorRT:
    """onnxruntime's TensorRT accelerator: FP16 engines, built at the first load and kept in `ENGINE_CACHE`.

    Attributes:
        smallest, usual, largest: input name to its shape, batch included, that the engine is built for; what lies
            outside is another engine, so minutes in the middle of serving.
    """

    smallest: Mapping[str, Size]
    usual: Mapping[str, Size]
    largest: Mapping[str, Size]
    workspace_bytes: int = 4 << 30


@dataclass(frozen=True)
class ServingProfile:
    """How one net is served.

    Attributes:
        kind: where its instances run.
        instances: on each device.
        max_batch_size: the most rows of one run; never less than the table's, which callers rely on. None: the table's.
        preferred: batch sizes that the batcher sends off at once.
        queue_delay_us: how long requests wait for others to share their batch with; None where a net does not batch.
        warm_up: batch sizes that are run with zeros before the model calls itself ready.
        sizes: input name to shape in those runs, where the table's shape varies.
        tensorrt: the accelerator, where there is one.
    """

    kind: Literal["KIND_CPU", "KIND_GPU"]
    instances: int = 1
    max_batch_size: int | None = None
    preferred: tuple[int, ...] = ()
    queue_delay_us: int | None = None
    warm_up: tuple[int, ...] = (1,)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    tensorrt: TensorRT | None = None


def _faces(batch: int) -> dict[str, Size]:
    return {tensor.name: (batch, *tensor.shape) for tensor in tensors.WAV2LIP.inputs}


_SMALL_PICTURE = {"image": (240, 320, 3)}

# One wav2lip window is 8 GFLOP (3 to 45 ms on two CPU cores), so 2 ms of waiting for company cost little and fill
# batches. A batch of s3fd is full sooner and each picture longer. One instance: a net fills all cores by itself, and
# Triton's default of two would share them and double the memory.
_CPU = {
    tensors.S3FD.name: ServingProfile("KIND_CPU", queue_delay_us=1000, sizes=_SMALL_PICTURE),
    tensors.WAV2LIP.name: ServingProfile("KIND_CPU", queue_delay_us=2000, warm_up=(1, tensors.WAV2LIP_BATCH)),
    tensors.SEGMENTATION.name: ServingProfile("KIND_CPU", sizes={"image": (384, 512, 3)}),
}
# On a GPU a window is under 0.1 ms, so only large batches fill it: 256 gave twice the frames of 32 on an H100. Two
# instances: one copies while the other computes. A window's wait is worth the few batches that it lasts.
_WAV2LIP_GPU = ServingProfile(
    "KIND_GPU",
    instances=2,
    max_batch_size=256,
    preferred=(64, 128, 256),
    queue_delay_us=1000,
    warm_up=(1, 16, 32, 64, 128, 256),
)
_S3FD_GPU = ServingProfile(
    "KIND_GPU", instances=2, max_batch_size=16, queue_delay_us=1000, warm_up=(1, 4, 16), sizes=_SMALL_PICTURE
)
_SEGMENTATION_GPU = ServingProfile("KIND_GPU", sizes={"image": (384, 512, 3)})
_GPU = {
    tensors.S3FD.name: _S3FD_GPU,
    tensors.WAV2LIP.name: _WAV2LIP_GPU,
    tensors.SEGMENTATION.name: _SEGMENTATION_GPU,
}
_TENSORRT = {
    tensors.S3FD.name: ServingProfile(
        "KIND_GPU",
        max_batch_size=8,
        queue_delay_us=1000,
        warm_up=(1, 8),
        sizes={"image": (360, 640, 3)},
        tensorrt=TensorRT({"image": (1, 64, 64, 3)}, {"image": (4, 360, 640, 3)}, {"image": (8, 1088, 1920, 3)}),
    ),
    tensors.WAV2LIP.name: ServingProfile(
        "KIND_GPU",
        max_batch_size=256,
        preferred=(64, 128, 256),
        queue_delay_us=1000,
        warm_up=(1, 256),
        tensorrt=TensorRT(_faces(1), _faces(64), _faces(256)),
    ),
    # one picture a form, of any size: engines for it would be built for ever
    tensors.SEGMENTATION.name: _SEGMENTATION_GPU,
}

PROFILES: Mapping[Profile, Mapping[str, ServingProfile]] = {
    profile: services | {tensors.WAV2LIP_GAN.name: services[tensors.WAV2LIP.name]}
    for profile, services in ((Profile.CPU, _CPU), (Profile.GPU, _GPU), (Profile.TENSORRT, _TENSORRT))
}
