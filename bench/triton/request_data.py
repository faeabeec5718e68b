"""`python -m bench perf-inputs`: real requests to every public model, in the form of `perf_analyzer --input-data`.

Pictures are cut out and thinned, never resampled, the speech is 16-bit, and no file format is written but WAV: all
comes out the same on every machine, but for the last bits of the mel windows.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from export.files import atomic_write
from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import CANDIDATES, FACE_SIZE, MODELS, Model, Tensor

Array = NDArray[Any]
Request = tuple[Any, ...]  # an array for each input of the model, in their order; None for one that is left out

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "bench" / "perf"
SHOT = 16  # windows of one request, as many as the gateway sends at once (avatar/speaking.py)
FPS = 25.0
CLIP_SECONDS = 0.75  # gives SHOT windows
PIECES = 25  # of a live session's speech
PIECE_SECONDS = 0.04  # one of them: as long as a frame is shown
TOLERANCE = 1e-3  # of floats; a mel value lies in ±4, and another CPU's differ by a millionth

# Where the face of samples/face.png is, pixels: a square of twice the net's side, so every second pixel makes a crop.
FACE_LEFT, FACE_TOP = 224, 212
_SEGMENTED = (384, 512)  # rows and columns of what PixelLib sends of a 4:3 picture, about


@dataclass(frozen=True)
class Inputs:
    """What is sent to one model.

    Attributes:
        model: of the table.
        frames: frames of a video that one request does its part of the work for; for a net that batches, each row; for
            a model with sequences, the whole sequence.
        requests: sent in turn, without Triton's batch dimension; of a model with sequences, the steps of one.
    """

    model: Model
    frames: int
    requests: Sequence[Request]

    @property
    def steps(self) -> int:
        """Requests that belong together: a sequence's, or 1."""
        return len(self.requests) if self.model.sequences else 1


def main(argv: Sequence[str]) -> int:
    """Exit status: 0 written or up to date, 1 `--check` found a difference, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m bench perf-inputs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what is not up to date")
    parser.add_argument("--dir", type=Path, default=FOLDER, help="where the files go (default: bench/perf)")
    options = parser.parse_args(argv)
    differences = outdated(options.dir)
    if options.check:
        for name, why in differences.items():
            print(f"{options.dir / name}: {why}; `python -m bench perf-inputs` writes it", file=sys.stderr)
        return 1 if differences else 0
    for name in write(options.dir):
        print(options.dir / name)
    return 0


def file_of(model: Model) -> str:
    """Name of the model's file."""
    return f"{model.name}.json"


def make(samples: Path = ROOT / "samples") -> list[Inputs]:
    """The inputs of every model of the table, from the portrait and the speech that ship with the project.

    Raises:
        OSError: a sample cannot be read.
    """
    picture = cv2.imread(str(samples / "face.png"))
    if picture is None:
        raise OSError(f"{samples / 'face.png'}: not a picture")
    speech, rate = soundfile.read(samples / "speech.wav", dtype="float32")
    if rate != SAMPLE_RATE:
        raise OSError(f"{samples / 'speech.wav'}: {rate} Hz, {SAMPLE_RATE} expected")
    half = picture[::2, ::2]
    frames = half[None]
    boxes = np.array([[FACE_LEFT, FACE_TOP, FACE_LEFT + 2 * FACE_SIZE, FACE_TOP + 2 * FACE_SIZE]], np.int32) // 2
    fps = np.array([FPS])
    windows = mel_windows(mel_spectrogram(speech), FPS)
    heard = windows[SHOT : 2 * SHOT]  # the clip begins in silence
    crops = np.stack([_crop(picture, FACE_LEFT + i, FACE_TOP) for i in range(SHOT)])  # a head that turns
    net = (1, list(zip(crops, heard, strict=True)))
    lips = (SHOT, [(frames, boxes, heard)])
    clip = speech[SAMPLE_RATE : SAMPLE_RATE + int(CLIP_SECONDS * SAMPLE_RATE)]
    portrait = np.frombuffer((samples / "face.png").read_bytes(), np.uint8)
    spoken = (speech[SAMPLE_RATE:] * 32768).astype(np.int16)  # exact: the file is of 16 bits
    job = {tensors.FACE_FILE: portrait, tensors.SPEECH_FILE: _wav(spoken[: clip.size])}
    session = _session(portrait, spoken)
    of: dict[str, tuple[int, Sequence[Request]]] = {
        tensors.MEL_SPECTROGRAM.name: (len(windows), [(speech, fps)]),
        tensors.S3FD.name: (1, [(half,)]),
        tensors.FACE_NMS.name: (2, [_candidates(boxes[0], 2)]),
        tensors.DETECT_FACES.name: (2, [(np.stack((half, half[:, ::-1])),)]),
        tensors.FACE_CROP.name: lips,
        tensors.WAV2LIP.name: net,
        tensors.WAV2LIP_GAN.name: net,
        tensors.LIPSYNC.name: lips,
        tensors.LIPSYNC_GAN.name: lips,
        tensors.FACE_PASTE.name: (SHOT, [(frames, boxes, crops)]),
        tensors.LIPSYNC_CLIP.name: (SHOT, [(clip, fps, frames, boxes)]),
        tensors.SEGMENTATION.name: (1, [(picture[-_SEGMENTED[0] :, : _SEGMENTED[1], ::-1],)]),
        tensors.AVATAR.name: (_frames(clip.size), [_request(tensors.AVATAR, job)]),
        tensors.LIVE.name: (len(session), session),  # a frame a request: docs/performance/perf-analyzer.md
    }
    return [Inputs(model, *of[model.name]) for model in MODELS]


def render(inputs: Inputs) -> str:
    """The file's text. perf_analyzer reads `data`; `about` and `frames` are for people and for `bench.perf`."""
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
    """A file as `render` writes it.

    Raises:
        InvalidInput: it does not fit the model's tensors.
        OSError, ValueError, KeyError, TypeError, AttributeError: there is none, or it is something else.
    """
    there = json.loads(path.read_text("utf-8"))
    steps = there["data"]
    if model.sequences:
        (steps,) = steps
    requests = []
    for request in steps:
        if unknown := request.keys() - {tensor.name for tensor in model.inputs}:
            raise InvalidInput(f"{', '.join(sorted(unknown))}: no input of {model.name}")
        requests.append(
            tuple(
                None if tensor.optional and tensor.name not in request else _decoded(request[tensor.name], tensor)
                for tensor in model.inputs
            )
        )
    return Inputs(model, int(there["frames"]), requests)


def outdated(folder: Path, made: Sequence[Inputs] | None = None) -> dict[str, str]:
    """File names to what is wrong with them; floats may differ by `TOLERANCE`."""
    found = {}
    made = make() if made is None else made
    for inputs in made:
        path = folder / file_of(inputs.model)
        if not path.is_file():
            found[path.name] = "missing"
            continue
        try:
            there = read(path, inputs.model)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found[path.name] = f"does not fit the model: {error}"
            continue
        if not _same(there, inputs):
            found[path.name] = "is of other samples"
    for path in folder.glob("*.json"):
        if path.name not in {file_of(inputs.model) for inputs in made}:
            found[path.name] = "is of no model"
    return found


def write(folder: Path) -> list[str]:
    """Write what is not up to date, and remove what is of no model; the names of both."""
    made = make()
    names = outdated(folder, made)
    for name in names:
        wanted = [inputs for inputs in made if file_of(inputs.model) == name]
        if not wanted:
            (folder / name).unlink()
        for inputs in wanted:
            with atomic_write(folder / name) as temporary:
                temporary.write_text(render(inputs), "utf-8")
    return list(names)


def _crop(picture: Array, left: int, top: int) -> Array:
    return picture[top : top + 2 * FACE_SIZE : 2, left : left + 2 * FACE_SIZE : 2]


def _candidates(box: Array, pictures: int) -> tuple[Array, Array]:
    """What s3fd finds around one face: boxes a few pixels off, the surer the nearer, and padding."""
    found = 48  # as S3FD gives of a face of a hundred pixels, about
    seeded = np.random.default_rng(0)
    boxes = np.zeros((pictures, CANDIDATES, 4), np.float32)
    scores = np.zeros((pictures, CANDIDATES), np.float32)
    spread = 1 + np.arange(found)[:, None] // 4  # pixels
    boxes[:, :found] = box + seeded.integers(-spread, spread + 1, (pictures, found, 4))
    scores[:, :found] = 1 - np.arange(found) / 64
    return boxes, scores


def _request(model: Model, given: dict[str, Array]) -> Request:
    return tuple(given.get(tensor.name) for tensor in model.inputs)


def _session(face: Array, speech: Array) -> list[Request]:
    """The face, the pieces of speech, and the end, which has no sound: as many frames come of it as it has steps."""
    size = int(PIECE_SECONDS * SAMPLE_RATE)
    pieces = np.split(speech[: PIECES * size], PIECES)
    steps = [{tensors.FACE_FILE: face, "format": np.array([b"jpeg"], np.object_)}]
    steps += [{"pcm": piece} for piece in (*pieces, speech[:0])]
    return [_request(tensors.LIVE, step) for step in steps]


def _frames(samples: int) -> int:
    """Of a result that is as long as so much speech (docs/adr/0006)."""
    return math.ceil(samples * FPS / SAMPLE_RATE)


def _wav(samples: Array) -> Array:
    """A WAV file's bytes, of 16-bit mono."""
    file = BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(samples.itemsize)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.tobytes())
    return np.frombuffer(file.getvalue(), np.uint8)


def _encoded(array: Array) -> dict[str, Any]:
    content: dict[str, str] | list[str]
    if array.dtype == np.object_:
        content = [text.decode("utf-8") for text in array]
    elif array.size:
        content = {"b64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")}
    else:
        content = []  # perf_analyzer crashes over a b64 of nothing
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


def _same(there: Inputs, made: Inputs) -> bool:
    if there.frames != made.frames or len(there.requests) != len(made.requests):
        return False
    pairs = [pair for both in zip(there.requests, made.requests, strict=True) for pair in zip(*both, strict=True)]
    return all(_alike(a, b) for a, b in pairs)


def _alike(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(a, b) if a.dtype == np.object_ else np.allclose(a, b, rtol=0, atol=TOLERANCE))
