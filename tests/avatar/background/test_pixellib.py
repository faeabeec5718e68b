"""PixelLib gives the same results with our models as with TensorFlow, and leaves no file, thread or import."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from avatar.background import pixellib
from avatar.errors import InvalidField, Unavailable
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.request import Background
from avatar.testing import FakeInference
from embedded.server import Triton
from tests.support.media import Frames, names, other_tasks, until

# PixelLib as intended: TensorFlow runs the graph. Only its module for h5 models, which fails with every TensorFlow for
# this Python, is replaced; pb models do not use it.
WITH_TENSORFLOW = """
import sys, types
from pathlib import Path
import numpy as np
h5 = types.ModuleType("pixellib.semantic.deeplab")
h5.Deeplab_xcep_pascal = h5.Deeplab_xcep_ade20k = type("Net", (), {})
sys.modules[h5.__name__] = h5
from pixellib.tune_bg import alter_bg
graph, folder = sys.argv[1], Path(sys.argv[2])
altering = alter_bg(model_type="pb")
altering.load_pascalvoc_model(graph)
for line in (folder / "jobs").read_text().splitlines():
    name, *color = line.split()
    changed = altering.color_bg(str(folder / f"{name}.png"), tuple(map(int, color)), detect="person")
    np.save(folder / f"{name}.npy", changed)
"""


def noise(height: int, width: int, seed: int) -> Frames:
    """Return colored blotches, some of them red enough to count as a person."""
    small = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def images(samples: Path) -> dict[str, Frames]:
    portrait = np.asarray(cv2.imread(str(samples / "portrait.png")), np.uint8)
    no_person = np.full((90, 70, 3), (200, 100, 50), np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    black[16:48, 16:48] = (0, 0, 200)
    black[30:34, 30:34] = 0  # black pixels of the person stay black
    return {
        "portrait": portrait,
        "head": portrait[:256, 100:356],
        "large": np.asarray(cv2.resize(portrait, (1300, 700)), np.uint8),
        "tall": noise(800, 40, 1),
        "wide": noise(30, 900, 2),
        "odd": noise(333, 517, 3),
        "tiny": noise(9, 7, 4),
        "no_person": no_person,
        "black": black,
    }


@pytest.fixture(scope="module")
def jobs(samples: Path) -> dict[str, tuple[Frames, Background]]:
    """Images by name, each with a color."""
    colors = [color for color in Background if color.rgb]
    return {name: (image, colors[n % len(colors)]) for n, (name, image) in enumerate(images(samples).items())}


@pytest.fixture(scope="module")
def by_tensorflow(
    jobs: dict[str, tuple[Frames, Background]], stand_in_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Frames]:
    """Results of PixelLib for the same images with a TensorFlow session."""
    folder = tmp_path_factory.mktemp("tensorflow")
    lines = []
    for name, (image, color) in jobs.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
        lines.append(" ".join([name, *map(str, color.rgb or ())]))
    (folder / "jobs").write_text("\n".join(lines))
    graph = stand_in_weights / "xception_pascalvoc.pb"
    subprocess.run(
        [sys.executable, "-c", WITH_TENSORFLOW, str(graph), str(folder)],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return {name: np.load(folder / f"{name}.npy") for name in jobs}


@pytest.mark.xdist_group("live")  # with the next test, so that TensorFlow runs once
async def test_pixellib_gives_the_same_with_our_session_as_with_tensorflow(
    jobs: dict[str, tuple[Frames, Background]], by_tensorflow: dict[str, Frames], tmp_path: Path
) -> None:
    for name, (image, color) in jobs.items():
        changed = await pixellib.replace_with_color(image, color.rgb or (0, 0, 0), tmp_path, FakeInference())
        np.testing.assert_array_equal(changed, by_tensorflow[name], name)
        if name not in ("tall", "no_person"):
            assert (changed == image).all(axis=2).any(), f"{name}: nothing is left of the person"


async def test_pixellib_gives_the_same_with_triton_as_with_tensorflow(
    jobs: dict[str, tuple[Frames, Background]], by_tensorflow: dict[str, Frames], tmp_path: Path, triton: Triton
) -> None:
    models = GrpcInferenceClient(triton.grpc_address)
    try:
        for name, (image, color) in jobs.items():
            changed = await pixellib.replace_with_color(image, color.rgb or (0, 0, 0), tmp_path, models)
            np.testing.assert_array_equal(changed, by_tensorflow[name], name)
    finally:
        await models.close()


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
