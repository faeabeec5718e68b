"""PixelLib as intended, with TensorFlow: images with their recorded results, and the program that makes the record.

TensorFlow takes half a minute to start, so `make test` compares with the record, and `make test-long` the record with
TensorFlow. The network is a small one whose labels the fake models of the tests compute, too: a pixel is a person if it
is much redder than blue. `python -m tests.support.pixellib_on_tensorflow` writes the record again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from avatar.request import Background
from lipsync.tensors import PERSON
from tests.support.media import Frames

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests" / "avatar" / "samples" / "pixellib.npz"  # which pixels PixelLib keeps, as bits
# Only the module for h5 models is replaced: no TensorFlow for this Python runs it, and pb models do not use it.
PROGRAM = """
import sys, types
from pathlib import Path
import numpy as np
import tensorflow.compat.v1 as tf
h5 = types.ModuleType("pixellib.semantic.deeplab")
h5.Deeplab_xcep_pascal = h5.Deeplab_xcep_ade20k = type("Net", (), {})
sys.modules[h5.__name__] = h5
from pixellib.tune_bg import alter_bg
person, redder, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
with tf.Graph().as_default() as graph:
    colors = tf.cast(tf.placeholder(tf.uint8, (1, None, None, 3), name="ImageTensor"), tf.int32)
    tf.multiply(tf.cast(colors[..., 0] - colors[..., 2] > redder, tf.int64), person, name="SemanticPredictions")
(folder / "network.pb").write_bytes(graph.as_graph_def().SerializeToString())
altering = alter_bg(model_type="pb")
altering.load_pascalvoc_model(str(folder / "network.pb"))
for line in (folder / "jobs").read_text().splitlines():
    name, *color = line.split()
    changed = altering.color_bg(str(folder / f"{name}.png"), tuple(map(int, color)), detect="person")
    np.save(folder / f"{name}.npy", changed)
"""

REDDER = 40  # gray levels of red above blue

Color = tuple[int, int, int]  # RGB


class Case(NamedTuple):
    image: Frames
    color: Color
    changed: Frames  # the image with that background


def noise(height: int, width: int, seed: int) -> Frames:
    """Return colored blotches, some of them red enough to count as a person."""
    small = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def images(samples: Path) -> dict[str, tuple[Frames, Color]]:
    """Return images by name, each with the color of its background."""
    portrait = np.asarray(cv2.imread(str(samples / "portrait.png")), np.uint8)
    black = np.zeros((64, 64, 3), np.uint8)
    black[16:48, 16:48] = (0, 0, 200)
    black[30:34, 30:34] = 0  # black pixels of the person stay black
    by_name = {
        "portrait": portrait,
        "head": portrait[:256, 100:356],
        "large": np.asarray(cv2.resize(portrait, (1300, 700)), np.uint8),
        "tall": noise(800, 40, 1),
        "wide": noise(30, 900, 2),
        "odd": noise(333, 517, 3),
        "tiny": noise(9, 7, 4),
        "no_person": np.full((90, 70, 3), (200, 100, 50), np.uint8),
        "black": black,
    }
    colors = [color.rgb for color in Background if color.rgb]
    return {name: (image, colors[n % len(colors)]) for n, (name, image) in enumerate(by_name.items())}


def recorded(samples: Path) -> dict[str, Case]:
    """Return the images with their recorded results."""
    with np.load(RECORD) as record:
        return {
            name: Case(image, color, painted(image, color, _unpacked(record[name], image)))
            for name, (image, color) in images(samples).items()
        }


def painted(image: Frames, color: Color, is_kept: np.ndarray) -> Frames:
    """Return the image [H,W,3] in which all pixels but the kept ones [H,W] have the color."""
    return np.where(is_kept[..., None], image, np.array(color[::-1], np.uint8))


def run(samples: Path, folder: Path) -> dict[str, Frames]:
    """Return the results of PixelLib with a TensorFlow session; its files are in `folder`."""
    lines = []
    for name, (image, color) in images(samples).items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
        lines.append(" ".join([name, *map(str, color)]))
    (folder / "jobs").write_text("\n".join(lines))
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(PERSON), str(REDDER), str(folder)],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return {name: np.load(folder / f"{name}.npy") for name in images(samples)}


def _unpacked(bits: np.ndarray, image: Frames) -> np.ndarray:
    height, width = image.shape[:2]
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def _write_record() -> None:
    samples = ROOT / "samples"
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        changed = run(samples, Path(folder))
    for name, (image, color) in images(samples).items():
        is_kept = (changed[name] == image).all(axis=2)
        if not np.array_equal(painted(image, color, is_kept), changed[name]):
            raise ValueError(f"{name}: PixelLib changed a pixel into neither its own color nor the new one")
        record[name] = np.packbits(is_kept)
    np.savez_compressed(RECORD, **record)


if __name__ == "__main__":
    _write_record()
