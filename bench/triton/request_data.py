"""`python -m bench perf-inputs`: real requests to every public model, in the format of `perf_analyzer --input-data`.

Images are cropped and decimated, never resampled, the speech has 16 bits, and WAV is the only encoded format. So the
files are the same on every machine, except for the last bits of the mel windows.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile

from export.files import atomic_write
from lipsync import tensors
from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import CANDIDATES, FACE_SIZE, MODELS, Model, Tensor

from ..cli import DONE, FAILED, report_failure
from ..paths import REQUEST_DATA, SAMPLES

Request = tuple[Array | None, ...]  # an array per input of the model, in their order; None for an omitted input

CHUNK_WINDOWS = 16  # windows per request, as many as the gateway sends (avatar/generation)
FPS = 25.0
CLIP_SECONDS = 0.75  # yields CHUNK_WINDOWS windows
LIVE_CHUNKS = 25  # requests with speech in a live session
LIVE_CHUNK_SECONDS = 0.04  # of one of them: the duration of a frame
TOLERANCE = 1e-3  # of floats; mel values are within ±4, and differ by a millionth between CPUs

# Position of the face in samples/face.png, in pixels: a square of twice the network's input size, so that every second
# pixel makes a crop.
FACE_LEFT, FACE_TOP = 224, 212
_SEGMENTED = (384, 512)  # rows and columns, about as PixelLib sends for an image of 4:3


@dataclass(frozen=True)
class Inputs:
    """The requests to one model.

    Attributes:
        model: the model.
        frames: video frames that one request covers; for a batching network, one row of it; for a model with
            sequences, the whole sequence.
        requests: sent in turn, without Triton's batch dimension; for a model with sequences, the steps of one sequence.
    """

    model: Model
    frames: int
    requests: Sequence[Request]

    @property
    def steps(self) -> int:
        """Number of requests per sequence; 1 for a model without sequences."""
        return len(self.requests) if self.model.sequences else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `perf-inputs`."""
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print what is not up to date, and exit with 1"
    )
    parser.add_argument("--dir", type=Path, default=REQUEST_DATA, help="folder of the files (default: bench/perf)")


def run(args: argparse.Namespace) -> int:
    """Write the files that are not up to date, or check them."""
    if args.check:
        differences = outdated(args.dir)
        for name, reason in differences.items():
            report_failure(f"{args.dir / name}: {reason}; `python -m bench perf-inputs` writes it")
        return FAILED if differences else DONE
    for name in write(args.dir):
        print(args.dir / name)
    return DONE


def file_name(model: Model) -> str:
    """Return the name of the model's file."""
    return f"{model.name}.json"


def make_inputs(samples: Path = SAMPLES) -> list[Inputs]:
    """Return the inputs of every model, made from the portrait and the speech that ship with the project.

    Raises:
        OSError: a sample cannot be read.
    """
    image, speech, portrait = _read_samples(samples)
    half = image[::2, ::2]
    boxes = np.array([[FACE_LEFT, FACE_TOP, FACE_LEFT + 2 * FACE_SIZE, FACE_TOP + 2 * FACE_SIZE]], np.int32) // 2
    fps = np.array([FPS])
    windows = mel_windows(mel_spectrogram(speech), FPS)
    chunk = windows[CHUNK_WINDOWS : 2 * CHUNK_WINDOWS]  # not the first, because the recording starts with silence
    crops = np.stack([_crop(image, FACE_LEFT + i, FACE_TOP) for i in range(CHUNK_WINDOWS)])  # a head that moves
    network = (1, list(zip(crops, chunk, strict=True)))
    lips = (CHUNK_WINDOWS, [(half[None], boxes, chunk)])
    clip = speech[SAMPLE_RATE : SAMPLE_RATE + int(CLIP_SECONDS * SAMPLE_RATE)]
    pcm = (speech[SAMPLE_RATE:] * 32768).astype(np.int16)  # exact, because the file has 16 bits
    job = {tensors.FACE_FILE: portrait, tensors.SPEECH_FILE: _wav(pcm[: clip.size])}
    session = _session(portrait, pcm)
    requests: dict[str, tuple[int, Sequence[Request]]] = {
        tensors.MEL_SPECTROGRAM.name: (len(windows), [(speech, fps)]),
        tensors.S3FD.name: (1, [(half,)]),
        tensors.FACE_NMS.name: (2, [_candidates(boxes[0], 2)]),
        tensors.DETECT_FACES.name: (2, [(np.stack((half, half[:, ::-1])),)]),
        tensors.FACE_CROP.name: lips,
        tensors.WAV2LIP.name: network,
        tensors.WAV2LIP_GAN.name: network,
        tensors.LIPSYNC.name: lips,
        tensors.LIPSYNC_GAN.name: lips,
        tensors.FACE_PASTE.name: (CHUNK_WINDOWS, [(half[None], boxes, crops)]),
        tensors.LIPSYNC_CLIP.name: (CHUNK_WINDOWS, [(clip, fps, half[None], boxes)]),
        tensors.SEGMENTATION.name: (1, [(image[-_SEGMENTED[0] :, : _SEGMENTED[1], ::-1],)]),
        tensors.AVATAR.name: (_frames(clip.size), [_request(tensors.AVATAR, job)]),
        tensors.LIVE.name: (len(session), session),  # one frame per request: docs/performance/perf-analyzer.md
    }
    return [Inputs(model, *requests[model.name]) for model in MODELS]


def _read_samples(samples: Path) -> tuple[Array, Array, Array]:
    """Return the portrait (UINT8 [H,W,3] BGR), the speech (FP32 [n], 16 kHz), and the bytes of the portrait's file."""
    image = cv2.imread(str(samples / "face.png"))
    if image is None:
        raise OSError(f"{samples / 'face.png'}: not an image")
    speech, rate = soundfile.read(samples / "speech.wav", dtype="float32")
    if rate != SAMPLE_RATE:
        raise OSError(f"{samples / 'speech.wav'}: {rate} Hz instead of {SAMPLE_RATE}")
    return image, speech, np.frombuffer((samples / "face.png").read_bytes(), np.uint8)


def render(inputs: Inputs) -> str:
    """Return the file's text. perf_analyzer reads `data`; `about` is for people, `frames` for `bench perf`."""
    steps = [
        {
            tensor.name: _encoded(array)
            for tensor, array in zip(inputs.model.inputs, request, strict=True)
            if array is not None
        }
        for request in inputs.requests
    ]
    data = [steps] if inputs.model.sequences else steps
    about = f"{inputs.model.name}: {inputs.model.description}. Made by `python -m bench perf-inputs`"
    return json.dumps({"about": about, "frames": inputs.frames, "data": data}, indent=1, ensure_ascii=False) + "\n"


def read(path: Path, model: Model) -> Inputs:
    """Read a file that `render` has written.

    Raises:
        InvalidInput: the data does not fit the model's tensors.
        OSError, ValueError, KeyError, TypeError, AttributeError: the file is missing or malformed.
    """
    there = json.loads(path.read_text("utf-8"))
    steps = there["data"]
    if model.sequences:
        (steps,) = steps
    requests = []
    for request in steps:
        if unknown := request.keys() - {tensor.name for tensor in model.inputs}:
            raise InvalidInput(f"{', '.join(sorted(unknown))}: not an input of {model.name}")
        requests.append(
            tuple(
                None if tensor.optional and tensor.name not in request else _decoded(request[tensor.name], tensor)
                for tensor in model.inputs
            )
        )
    return Inputs(model, int(there["frames"]), requests)


def outdated(folder: Path, current: Sequence[Inputs] | None = None) -> dict[str, str]:
    """Return what is wrong with each file that is not up to date; floats may differ by `TOLERANCE`."""
    found = {}
    current = make_inputs() if current is None else current
    for inputs in current:
        path = folder / file_name(inputs.model)
        if not path.is_file():
            found[path.name] = "missing"
            continue
        try:
            there = read(path, inputs.model)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found[path.name] = f"does not fit the model: {error}"
            continue
        if not _same(there, inputs):
            found[path.name] = "was made from other samples"
    for path in folder.glob("*.json"):
        if path.name not in {file_name(inputs.model) for inputs in current}:
            found[path.name] = "belongs to no model"
    return found


def write(folder: Path) -> list[str]:
    """Write the files that are not up to date, remove those of unknown models; return the names of both."""
    current = make_inputs()
    names = outdated(folder, current)
    for name in names:
        wanted = [inputs for inputs in current if file_name(inputs.model) == name]
        if not wanted:
            (folder / name).unlink()
        for inputs in wanted:
            with atomic_write(folder / name) as temporary:
                temporary.write_text(render(inputs), "utf-8")
    return list(names)


def _crop(image: Array, left: int, top: int) -> Array:
    return image[top : top + 2 * FACE_SIZE : 2, left : left + 2 * FACE_SIZE : 2]


def _candidates(box: Array, images: int) -> tuple[Array, Array]:
    """Return boxes and scores like those of s3fd around one face: the nearer, the higher the score; then padding."""
    found = 48  # about as many as S3FD returns for a face of a hundred pixels
    seeded = np.random.default_rng(0)
    boxes = np.zeros((images, CANDIDATES, 4), np.float32)
    scores = np.zeros((images, CANDIDATES), np.float32)
    spread = 1 + np.arange(found)[:, None] // 4  # pixels
    boxes[:, :found] = box + seeded.integers(-spread, spread + 1, (images, found, 4))
    scores[:, :found] = 1 - np.arange(found) / 64
    return boxes, scores


def _request(model: Model, given: dict[str, Array]) -> Request:
    return tuple(given.get(tensor.name) for tensor in model.inputs)


def _session(face: Array, speech: Array) -> list[Request]:
    """Return the face, the chunks of speech, and the end without audio; a session has as many frames as steps."""
    size = int(LIVE_CHUNK_SECONDS * SAMPLE_RATE)
    pieces = np.split(speech[: LIVE_CHUNKS * size], LIVE_CHUNKS)
    steps = [{tensors.FACE_FILE: face, "format": np.array([b"jpeg"], np.object_)}]
    steps += [{"pcm": piece} for piece in (*pieces, speech[:0])]
    return [_request(tensors.LIVE, step) for step in steps]


def _frames(samples: int) -> int:
    """Return the number of frames of a result with this many audio samples (docs/adr/0006)."""
    return math.ceil(samples * FPS / SAMPLE_RATE)


def _wav(samples: Array) -> Array:
    """Encode the samples as WAV, 16-bit mono; return the bytes."""
    file = BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(samples.itemsize)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    return np.frombuffer(file.getvalue(), np.uint8)


def _encoded(array: Array) -> dict[str, object]:
    content: dict[str, str] | list[str]
    if array.dtype == np.object_:
        content = [text.decode("utf-8") for text in array]
    elif array.size:
        content = {"b64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")}
    else:
        content = []  # perf_analyzer crashes on an empty b64
    return {"content": content, "shape": list(array.shape)}


def _decoded(value: dict[str, Any], tensor: Tensor) -> Array:
    content = value["content"]
    if isinstance(content, list):
        array = np.array([text.encode("utf-8") for text in content], tensor.numpy)
    else:
        array = np.frombuffer(base64.b64decode(content["b64"], validate=True), tensor.numpy)
    array = array.reshape(value["shape"])
    tensor.check(array)
    return array


def _same(found: Inputs, made: Inputs) -> bool:
    if found.frames != made.frames or len(found.requests) != len(made.requests):
        return False
    pairs = [pair for both in zip(found.requests, made.requests, strict=True) for pair in zip(*both, strict=True)]
    return all(_equal(a, b) for a, b in pairs)


def _equal(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(a, b) if a.dtype == np.object_ else np.allclose(a, b, rtol=0, atol=TOLERANCE))
