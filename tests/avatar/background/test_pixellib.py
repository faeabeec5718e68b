"""PixelLib gives the same results with our models as with TensorFlow, and leaves no file, thread or import."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.background import pixellib
from avatar.errors import InvalidField, Unavailable
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.testing import FakeInference
from embedded.server import Triton
from tests.support import pixellib_on_tensorflow
from tests.support.media import Frames, names, other_tasks, until
from tests.support.pixellib_on_tensorflow import Case, noise


@pytest.fixture(scope="module")
def cases(samples: Path) -> dict[str, Case]:
    """Images by name, each with a color, and the result of PixelLib with TensorFlow that was recorded for it."""
    return pixellib_on_tensorflow.recorded(samples)


async def test_pixellib_gives_the_same_with_our_session_as_with_tensorflow(
    cases: dict[str, Case], tmp_path: Path
) -> None:
    for name, (image, color, expected) in cases.items():
        changed = await pixellib.replace_with_color(image, color, tmp_path, FakeInference())
        np.testing.assert_array_equal(changed, expected, name)
        if name not in ("tall", "no_person"):
            assert (changed == image).all(axis=2).any(), f"{name}: nothing is left of the person"


async def test_pixellib_gives_the_same_with_triton_as_with_tensorflow(
    cases: dict[str, Case], tmp_path: Path, triton: Triton
) -> None:
    models = GrpcInferenceClient(triton.grpc_address)
    try:
        for name, (image, color, expected) in cases.items():
            changed = await pixellib.replace_with_color(image, color, tmp_path, models)
            np.testing.assert_array_equal(changed, expected, name)
    finally:
        await models.close()


@pytest.mark.slow  # TensorFlow takes half a minute to start
def test_the_recorded_results_are_those_of_tensorflow(cases: dict[str, Case], samples: Path, tmp_path: Path) -> None:
    for name, changed in pixellib_on_tensorflow.run(samples, tmp_path).items():
        np.testing.assert_array_equal(changed, cases[name].changed, name)


async def test_without_a_person_the_whole_image_gets_the_color(tmp_path: Path) -> None:
    changed = await pixellib.replace_with_color(
        np.full((40, 60, 3), 90, np.uint8), (209, 52, 52), tmp_path, FakeInference()
    )
    assert (changed == (52, 52, 209)).all()


async def test_no_file_remains_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    await pixellib.replace_with_color(noise(50, 60, 0), (0, 255, 0), tmp_path, FakeInference())
    assert names(tmp_path) == {"elsewhere"}
    assert not names(elsewhere)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(2, 1027), (1027, 2), (1, 514)])
async def test_an_image_too_narrow_for_pixellib_is_rejected(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidField, match=r"face_file: \d+x\d+ is too long and narrow .* at most 513:1"):
        await pixellib.replace_with_color(noise(*size, 0), (0, 0, 0), tmp_path, FakeInference())


@pytest.mark.parametrize("size", [(2, 1026), (1026, 2), (1, 513), (1, 1)])
async def test_the_narrowest_image_that_pixellib_takes_is_accepted(tmp_path: Path, size: tuple[int, int]) -> None:
    changed = await pixellib.replace_with_color(noise(*size, 0), (0, 0, 0), tmp_path, FakeInference())
    assert changed.shape[:2] == size


async def test_an_error_of_the_model_inside_pixellib_reaches_the_caller(tmp_path: Path) -> None:
    models = FakeInference(failures={"segment": Unavailable("segmentation cannot be reached")})
    with pytest.raises(Unavailable, match="segmentation cannot be reached"):
        await pixellib.replace_with_color(noise(50, 60, 0), (0, 0, 0), tmp_path, models)
    assert not names(tmp_path)
    assert not other_tasks()


async def test_cancelled_during_inference_it_leaves_no_waiting_thread(tmp_path: Path) -> None:
    models = FakeInference()
    models.gates["segment"] = asyncio.Event()
    task = asyncio.create_task(pixellib.replace_with_color(noise(50, 60, 0), (0, 0, 0), tmp_path, models))
    await until(lambda: bool(models.running["segment"]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not names(tmp_path)
    assert not other_tasks()
    assert not models.running.total()


async def test_concurrent_replacements_do_not_mix(tmp_path: Path) -> None:
    async def one(n: int) -> None:
        folder = tmp_path / str(n)
        folder.mkdir()
        image = noise(60 + n, 80, n)
        changed = await pixellib.replace_with_color(image, (n, 2 * n, 3 * n), folder, FakeInference())
        painted = (changed == (3 * n, 2 * n, n)).all(axis=2)
        kept = (changed == image).all(axis=2)
        assert (painted | kept).all()
        assert painted.any()

    await asyncio.gather(*(one(n) for n in range(1, 9)))


async def test_replacement_leaves_the_shared_threads_to_the_models(tmp_path: Path) -> None:
    class InThread(FakeInference):
        async def segment(self, image: Frames) -> NDArray[np.int32]:
            await asyncio.to_thread(len, image)  # like the Triton client, which copies its arrays in a thread
            return await super().segment(image)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    jobs = [pixellib.replace_with_color(noise(30, 40, n), (0, 255, 0), tmp_path / str(n), InThread()) for n in range(3)]
    for n in range(3):
        (tmp_path / str(n)).mkdir()
    async with asyncio.timeout(30):
        painted = await asyncio.gather(*jobs)
    assert [image.shape for image in painted] == [(30, 40, 3)] * 3


def test_neither_tensorflow_nor_a_substitute_for_it_is_imported() -> None:
    program = """
import asyncio, sys, tempfile
from importlib.abc import MetaPathFinder
from pathlib import Path
import numpy as np

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "torch", "export"):
            raise AssertionError(name + " was imported")

sys.meta_path.insert(0, Blocker())
from avatar.background import pixellib
from avatar.testing import FakeInference
with tempfile.TemporaryDirectory() as folder:
    image = np.full((30, 40, 3), (10, 20, 200), np.uint8)
    changed = asyncio.run(pixellib.replace_with_color(image, (0, 255, 0), Path(folder), FakeInference()))
assert (changed == image).all()
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "pixellib")))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['pixellib']"  # only the empty package; the modules with substitutes are private
