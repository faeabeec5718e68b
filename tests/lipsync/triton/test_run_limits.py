"""How much one run may take, on a CPU and on a GPU."""

from __future__ import annotations

import numpy as np

from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.run_limits import LARGE_BYTES, CpuLimits, GpuLimits, RunPlan
from tests.support.fake_pb_utils import Tensors, backend_args

FACES: Tensors = {"face": (np.uint8, (96, 96, 3)), "mel": (np.float32, (80, 16))}
IMAGES: Tensors = {"image": (np.uint8, (-1, -1, 3))}
OUT: Tensors = {"mouth": (np.uint8, (96, 96, 3))}


def _images(rows: int, height: int, width: int) -> dict[str, np.ndarray]:
    # a view of one byte: only the shape counts
    return {"image": np.broadcast_to(np.uint8(0), (rows, height, width, 3))}


def _gpu(inputs: Tensors, **changes: str) -> GpuLimits:
    return GpuLimits(BackendConfig(backend_args(inputs, OUT, parameters=changes)))


def test_on_a_cpu_large_inputs_run_row_by_row_and_give_their_memory_back() -> None:
    small, large = np.zeros((2, LARGE_BYTES // 2), np.uint8), np.zeros((2, LARGE_BYTES), np.uint8)
    assert CpuLimits().plan({"x": small}) == RunPlan(None, False)
    assert CpuLimits().plan({"x": large}) == RunPlan(1, True)


def test_on_a_gpu_rows_of_a_fixed_size_run_together_however_many_they_are() -> None:
    feeds = {name: np.broadcast_to(dtype(0), (512, *shape)) for name, (dtype, shape) in FACES.items()}
    assert sum(array.nbytes for array in feeds.values()) > LARGE_BYTES
    assert _gpu(FACES).plan(feeds) == RunPlan(None, False)


def test_on_a_gpu_images_are_bounded_by_their_pixels() -> None:
    limits = _gpu(IMAGES)
    plans = [limits.plan(_images(16, *size)).rows for size in ((720, 1280), (1080, 1920), (2160, 3840), (9000, 9000))]
    assert plans == [17, 7, 1, 1]
    assert not limits.plan(_images(16, 2160, 3840)).large


def test_the_pixels_are_a_parameter() -> None:
    assert _gpu(IMAGES, MAX_RUN_PIXELS="1000000").plan(_images(4, 500, 1000)).rows == 2
