"""Run once what the Python models run, without a server: the last step of the Triton image's build.

Prints the version of Python, the shapes of the results, and the result of a whole job with fake networks.
"""

import asyncio
import sys
import tempfile
import wave
from contextlib import aclosing
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pi_heif

import avatar
import lipsync
from avatar.events import Chunk, RenderResult
from avatar.form.parse import Upload, parse
from avatar.pipeline import render
from avatar.settings import JobSettings, load
from avatar.testing import FakeInference
from lipsync.face_crop import crop, paste
from lipsync.face_detection import non_max_suppression
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import BACKGROUND, FACE_FILE, FACE_TYPE, SPEECH_FILE

# of `avatar`: the gRPC client, and the memory that it shares with a server; of `lipsync`: the folder for PyTorch
NOT_IN_TRITON = {
    *("grpc_client", "live_failures", "live_stream", "server_pool", "shared_memory", "triton_rpc", "triton_server"),
    "pytorch",
}

for package in (lipsync, avatar):
    folder = Path(package.__path__[0])
    for module in folder.rglob("*.py"):
        if not {module.stem, module.parent.name} & NOT_IN_TRITON:
            name = ".".join((package.__name__, *module.relative_to(folder).with_suffix("").parts))
            import_module(name.removesuffix(".__init__"))

speech = np.sin(np.arange(SAMPLE_RATE, dtype=np.float32) / 10)
mel = mel_windows(mel_spectrogram(speech), 25.0)
image = np.full((1, 120, 160, 3), 128, np.uint8)
boxes = np.array([[20, 20, 90, 100]], np.int32)
faces = crop(image, boxes, len(mel))
frames = paste(image, boxes, faces)
kept, _ = non_max_suppression(np.tile(boxes.astype(np.float32), (1, 1024, 1)), np.full((1, 1024), 0.9, np.float32))


async def render_once(folder: Path, models: FakeInference) -> tuple[bytes, RenderResult]:
    """Render with a new background, so that ffmpeg (the system's or imageio-ffmpeg's) and PixelLib run."""
    shown = image[0].copy()
    shown[20:100, 20:90] = (0, 0, 200)  # red: a person, to the fake network
    (folder / "face").write_bytes(cv2.imencode(".png", shown)[1].tobytes())
    with wave.open(str(folder / "speech"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((speech * 32767).astype("<i2").tobytes())
    files = {name: Upload(folder / file, 1) for name, file in ((FACE_FILE, "face"), (SPEECH_FILE, "speech"))}
    asked = parse({FACE_TYPE: "png", BACKGROUND: "Green", **files}, folder, "smoke", streamed=True)
    async with aclosing(render(asked, models)) as events:
        received = [event async for event in events]
    result = received[-1]
    if not isinstance(result, RenderResult):
        sys.exit(f"the job ended with {result}")
    return b"".join(event.data for event in received if isinstance(event, Chunk)), result


fake = FakeInference()
with tempfile.TemporaryDirectory(dir=load(JobSettings).work_dir) as made:
    video, rendered = asyncio.run(render_once(Path(made), fake))
if not fake.calls["segment"]:
    sys.exit("PixelLib did not call the segmentation network")
if not pi_heif.libheif_info()["decoders"]:
    sys.exit("pi_heif decodes nothing")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as our openvino backend does
openvino = import_module("openvino")
if "CPU" not in openvino.Core().available_devices:
    sys.exit("openvino finds no CPU")
print(*sys.version_info[:2], mel.shape, faces.shape, frames.shape, kept.shape, video[4:8].decode(), rendered.frames)
