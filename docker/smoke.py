"""Runs once what the Python models run, without a server: the last step of the Triton image's build.

Prints the shapes that came out, and the version of Python.
"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np

import lipsync
from lipsync.crop import crop, paste
from lipsync.faces import suppress
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.windows import mel_windows

for module in Path(lipsync.__file__).parent.glob("*.py"):
    import_module(f"lipsync.{module.stem}".removesuffix(".__init__"))

speech = np.sin(np.arange(SAMPLE_RATE, dtype=np.float32) / 10)
mel = mel_windows(mel_spectrogram(speech), 25.0)
picture = np.full((1, 120, 160, 3), 128, np.uint8)
boxes = np.array([[20, 20, 90, 100]], np.int32)
faces = crop(picture, boxes, len(mel))
frames = paste(picture, boxes, faces)
kept, _ = suppress(np.tile(boxes.astype(np.float32), (1, 1024, 1)), np.full((1, 1024), 0.9, np.float32))
sys.modules["openvino_telemetry"] = None  # as our openvino backend does
openvino = import_module("openvino")
if "CPU" not in openvino.Core().available_devices:
    sys.exit("openvino finds no CPU")
print(*sys.version_info[:2], mel.shape, faces.shape, frames.shape, kept.shape)
