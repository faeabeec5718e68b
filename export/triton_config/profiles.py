"""How the networks are served on each kind of machine: instances, batches, queue delays, accelerators, warm-up.

There is one `ServingProfile` per profile and network; `model_config` turns it into a ModelConfig protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lipsync import tensors

from ..variants import Profile

# Where TensorRT caches its engines. Building one takes minutes, and it fits one kind of GPU and one model file.
ENGINE_CACHE = "/var/cache/talking-avatar/tensorrt"
Size = tuple[int, ...]


@dataclass(frozen=True)
class TensorRT:
    """onnxruntime's TensorRT accelerator: FP16 engines, built at the first load and cached in `ENGINE_CACHE`.

    Attributes:
        smallest, usual, largest: input name to the shape (with batch) that the engine is built for. A shape outside
            this range needs another engine, which takes minutes while requests wait.
        workspace_bytes: GPU memory that TensorRT may use while it builds an engine.
    """

    smallest: Mapping[str, Size]
    usual: Mapping[str, Size]
    largest: Mapping[str, Size]
    workspace_bytes: int = 4 << 30


@dataclass(frozen=True)
class ServingProfile:
    """How one network is served.

    Attributes:
        kind: the device of its instances.
        instances: number of instances per device.
        max_batch_size: largest batch of one run, at least the table's, which callers rely on. None means the table's.
        preferred: batch sizes that the batcher runs without further delay.
        queue_delay_us: how long a request waits for others to join its batch; None if the network does not batch.
        warm_up: batch sizes that are run on zeros before the model is ready.
        sizes: input name to shape in the warm-up, for inputs whose shape varies.
        tensorrt: the accelerator, if there is one.
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


_SMALL_IMAGE = {"image": (240, 320, 3)}

# One wav2lip window is 8 GFLOP (3 to 45 ms on two CPU cores), so a queue delay of 2 ms costs little and fills batches.
# s3fd has smaller batches and takes longer per image. One instance: a network uses all cores by itself; Triton's
# default of two instances would split them and double the memory.
_CPU = {
    tensors.S3FD.name: ServingProfile("KIND_CPU", queue_delay_us=1000, sizes=_SMALL_IMAGE),
    tensors.WAV2LIP.name: ServingProfile("KIND_CPU", queue_delay_us=2000, warm_up=(1, tensors.WAV2LIP_BATCH)),
    tensors.SEGMENTATION.name: ServingProfile("KIND_CPU", sizes={"image": (384, 512, 3)}),
}
# On a GPU a window takes less than 0.1 ms, so only large batches use it fully: on an H100 batches of 256 gave twice the
# frames per second of batches of 32. Two instances: one copies while the other computes.
_WAV2LIP_GPU = ServingProfile(
    "KIND_GPU",
    instances=2,
    max_batch_size=256,
    preferred=(64, 128, 256),
    queue_delay_us=1000,
    warm_up=(1, 16, 32, 64, 128, 256),
)
_S3FD_GPU = ServingProfile(
    "KIND_GPU", instances=2, max_batch_size=16, queue_delay_us=1000, warm_up=(1, 4, 16), sizes=_SMALL_IMAGE
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
    # one image of any size per request, so TensorRT would build a new engine for almost every request
    tensors.SEGMENTATION.name: _SEGMENTATION_GPU,
}

PROFILES: Mapping[Profile, Mapping[str, ServingProfile]] = {
    profile: services | {tensors.WAV2LIP_GAN.name: services[tensors.WAV2LIP.name]}
    for profile, services in ((Profile.CPU, _CPU), (Profile.GPU, _GPU), (Profile.TENSORRT, _TENSORRT))
}
