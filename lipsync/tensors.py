"""Every public model, tensor by tensor: the one source for configs, clients, docs and tests.

A `-1` in a shape is a dimension that varies. For a model with `max_batch_size > 0` Triton adds the
batch dimension in front of each shape here; for the others the leading `-1` is part of the shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .arrays import Array
from .errors import InvalidInput

# Version of this table. The first number changes if a change breaks callers (another name, type or shape, a new
# required input), the second if something optional is added. The configuration of every model contains it as the
# parameter `api_version`. A test compares the table with what was published under its version.
API_VERSION = "1.1"
API_VERSION_PARAMETER = "api_version"

DataType = Literal["BYTES", "UINT8", "INT16", "INT32", "FP32", "FP64"]
_NUMPY: dict[str, type[np.generic]] = {
    "BYTES": np.object_,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "FP32": np.float32,
    "FP64": np.float64,
}

FACE_SIZE = 96  # pixels; Wav2Lip's input and output are squares of this side
MEL_BANDS = 80
WINDOW_COLUMNS = 16  # mel columns per frame of Wav2Lip
CANDIDATES = 1024  # boxes that S3FD returns, best first, before NMS
FACES = 16  # faces per frame that `face_nms` returns, best first
PERSON = 15  # class number of a person in Pascal VOC, as `segmentation` labels it


@dataclass(frozen=True)
class Tensor:
    """One named input or output of a Triton model."""

    name: str
    dtype: DataType
    shape: tuple[int, ...]
    description: str
    optional: bool = False

    @property
    def numpy(self) -> type[np.generic]:
        """The NumPy scalar type of this tensor's elements."""
        return _NUMPY[self.dtype]

    def accepts(self, array: Array, *, batched: bool = False) -> bool:
        """Return whether `array` has this tensor's type and shape (with a batch in front if `batched`)."""
        shape = array.shape[1:] if batched else array.shape
        return (
            array.dtype == self.numpy
            and len(shape) == len(self.shape)
            and all(want in (-1, have) for want, have in zip(self.shape, shape, strict=True))
        )

    def mismatch(self, array: Array, *, batched: bool = False) -> str:
        """Return a readable reason why `accepts` is false for `array`."""
        shape = [-1, *self.shape] if batched else [*self.shape]
        return f"{self.dtype} {shape} expected, got {list(array.shape)}"

    def check(self, array: Array, *, batched: bool = False) -> None:
        """Raise InvalidInput with this tensor's name if `accepts` is false for `array`."""
        if not self.accepts(array, batched=batched):
            raise InvalidInput(f"{self.name}: {self.mismatch(array, batched=batched)}")


@dataclass(frozen=True)
class Model:
    """One public Triton model.

    Attributes:
        max_batch_size: largest batch that Triton forms; 0 means no batching and explicit leading dimensions.
        streams: whether a request has any number of responses (Triton calls such a model decoupled), each with some
            of the outputs; such a model is called by `ModelStreamInfer`.
        sequences: whether requests belong to sessions, identified by their `sequence_id`.
    """

    name: str
    description: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    streams: bool = False
    sequences: bool = False


# One `s3fd` batch. Detection keeps both CPU cores busy with a single frame, and conv1 alone holds
# 2 · 64 · H · W floats per frame, so a longer batch costs memory and gains nothing there.
S3FD_BATCH = 4
# One `wav2lip` batch: the most windows that one `lipsync` call may ask for.
WAV2LIP_BATCH = 32

AUDIO = Tensor("audio", "FP32", (-1,), "speech, 16 kHz mono, full scale ±1; NaN and infinities count as 0")
FPS = Tensor("fps", "FP64", (1,), "frames per second of the result")
FRAMES = Tensor("frames", "UINT8", (-1, -1, -1, 3), "images, BGR: one, or one per window")
BOXES = Tensor("boxes", "INT32", (-1, 4), "x1 y1 x2 y2 in pixels, one per frame; x2 and y2 are exclusive")
MEL_WINDOWS = Tensor("mel", "FP32", (-1, MEL_BANDS, WINDOW_COLUMNS), "mel windows, one per frame of the result")
FACES_BGR = Tensor("faces", "UINT8", (-1, FACE_SIZE, FACE_SIZE, 3), "crops, BGR")
MOUTHS = Tensor("mouths", "UINT8", (-1, FACE_SIZE, FACE_SIZE, 3), "generated crops, BGR")

MEL_SPECTROGRAM = Model(
    "mel_spectrogram",
    "speech to mel windows, as many as the original's rule gives",
    (AUDIO, FPS),
    (MEL_WINDOWS,),
)
S3FD = Model(
    "s3fd",
    "face candidates of one image, before NMS",
    (Tensor("image", "UINT8", (-1, -1, 3), "image, BGR"),),
    (
        Tensor("boxes", "FP32", (CANDIDATES, 4), "x1 y1 x2 y2 in pixels, best first"),
        Tensor("scores", "FP32", (CANDIDATES,), "0…1, best first; 0 pads"),
    ),
    max_batch_size=S3FD_BATCH,
)
_DETECTED = (
    Tensor("boxes", "FP32", (-1, FACES, 4), "x1 y1 x2 y2 in pixels, best first"),
    Tensor("scores", "FP32", (-1, FACES), "over 0.5…1, best first; 0 pads"),
)
FACE_NMS = Model(
    "face_nms",
    "non-maximum suppression of face candidates",
    (
        Tensor("boxes", "FP32", (-1, CANDIDATES, 4), "candidates, x1 y1 x2 y2 in pixels, best first"),
        Tensor("scores", "FP32", (-1, CANDIDATES), "their scores; 0 pads"),
    ),
    _DETECTED,
)
DETECT_FACES = Model(
    "detect_faces",
    "s3fd, then face_nms",
    (Tensor("frames", "UINT8", (-1, -1, -1, 3), f"images, BGR, at most {S3FD_BATCH}"),),
    _DETECTED,
)
FACE_CROP = Model(
    "face_crop",
    "faces cut out and scaled to 96×96",
    (
        FRAMES,
        BOXES,
        Tensor(
            "mel",
            MEL_WINDOWS.dtype,
            MEL_WINDOWS.shape,
            "only its length is used: one frame and one box then serve every window",
            optional=True,
        ),
    ),
    (FACES_BGR,),
)


def _wav2lip(name: str, description: str) -> Model:
    return Model(
        name,
        description,
        (
            Tensor("face", "UINT8", (FACE_SIZE, FACE_SIZE, 3), "crop, BGR"),
            Tensor("mel", "FP32", (MEL_BANDS, WINDOW_COLUMNS), "its mel window"),
        ),
        (Tensor("mouth", "UINT8", (FACE_SIZE, FACE_SIZE, 3), "the crop with lips that match the speech, BGR"),),
        max_batch_size=WAV2LIP_BATCH,
    )


WAV2LIP = _wav2lip("wav2lip", "lip generation, the checkpoint wav2lip.pth")
WAV2LIP_GAN = _wav2lip("wav2lip_gan", "lip generation, the checkpoint wav2lip_gan.pth")
# The same files again, with a queue of their own, so that the batches of `live` do not wait for those of whole videos.
# They are no public models: only `live` calls them, and a repository need not have them (docs/adr/0034).
LIVE_NETWORKS: Mapping[str, Model] = {
    net.name: replace(net, name=f"{net.name}_live", description=f"{net.name} with a queue of its own for `live`")
    for net in (WAV2LIP, WAV2LIP_GAN)
}


def _lipsync(name: str, net: Model) -> Model:
    return Model(
        name,
        f"face_crop, then {net.name}; at most {net.max_batch_size} windows",
        (FRAMES, BOXES, MEL_WINDOWS),
        (MOUTHS,),
    )


LIPSYNC = _lipsync("lipsync", WAV2LIP)
LIPSYNC_GAN = _lipsync("lipsync_gan", WAV2LIP_GAN)
FACE_PASTE = Model(
    "face_paste",
    "generated crops pasted over their boxes",
    (FRAMES, BOXES, MOUTHS),
    (Tensor("frames", "UINT8", (-1, -1, -1, 3), "images, BGR, one per generated crop"),),
)
LIPSYNC_CLIP = Model(
    "lipsync_clip",
    f"a short clip in one call: speech and images in, frames out; at most {WAV2LIP_BATCH} windows",
    (AUDIO, FPS, FRAMES, BOXES),
    # not `frames`: an ensemble's tensors share one namespace (docs/adr/0005)
    (Tensor("result", "UINT8", (-1, -1, -1, 3), "images, BGR, one per window"),),
)
SEGMENTATION = Model(
    "segmentation",
    "Pascal VOC class of every pixel (15 = person)",
    (Tensor("image", "UINT8", (-1, -1, 3), "image, RGB"),),
    (Tensor("labels", "INT32", (-1, -1), "class of each pixel"),),
)

# The fields of the original form, and of the options that came later (described in `avatar.form.fields`).
FACE_TYPE, BACKGROUND = "avatarFileType", "background"
FACE_FILE, SPEECH_FILE, BACKGROUND_FILE = "face_file", "audio_file", "background_file"
OPTIONS = (
    "model",
    "face",
    "no_face",
    "detection",
    "blend",
    "pads",
    "smooth",
    "box",
    "length",
    "fps",
    "resize_factor",
    "rotate",
    "crop",
    "max_height",
    "quality",
    "background_edge",
    "background_video",
)
# Inputs of `live`: of every request after the first; of the first request only; of any request.
SESSION_TOKEN, RECEIVED = "token", "received"
LIVE_SAMPLE_RATE, ECHO, PREPARED_AVATAR, NEW_SEQUENCE = "sample_rate", "echo", "avatar", "new_sequence"
CLEAR, SEGMENT_END, REST = "clear", "segment_end", "rest"
NOT_LIVE = frozenset({"quality", "background_video"})  # there is no encoder, and no time
LIVE_SAMPLES = (320, 480_000)  # per request at 16 kHz, 20 ms to 30 s; the last one of a segment may have fewer
LIVE_SAMPLE_RATES = (8000, 48_000)  # Hz, the lowest and the highest
SEQUENCE_IDLE_SECONDS = 10  # a session without a request for this time is ended; one that rests has a request


def _text(name: str, description: str) -> Tensor:
    return Tensor(name, "BYTES", (1,), description, optional=True)


_AVATAR_OPTIONS = (
    _text(
        FACE_TYPE,
        "extension of face_file, as in the form; default `png`; a hint only: the type is detected from the content",
    ),
    _text(BACKGROUND, "as in the form; default `From Input`"),
    Tensor(
        BACKGROUND_FILE, "UINT8", (-1,), "the image to place behind the person, as bytes of the file", optional=True
    ),
)


def _choices(left_out: frozenset[str] = frozenset()) -> tuple[Tensor, ...]:
    return tuple(_text(name, "option of the form, as text") for name in OPTIONS if name not in left_out)


AVATAR = Model(
    "avatar",
    "the whole job: a face and speech in, progress and an mp4 out in chunks",
    (
        Tensor(FACE_FILE, "UINT8", (-1,), "an image or a video, as bytes of the file"),
        Tensor(SPEECH_FILE, "UINT8", (-1,), "the speech, as bytes of an audio file"),
        *_AVATAR_OPTIONS,
        *_choices(),
    ),
    (
        Tensor("stage", "BYTES", (1,), "progress: the stage"),
        Tensor("done", "INT32", (1,), "progress: frames that have passed the stage"),
        Tensor("total", "INT32", (1,), "progress: frames in all; -1 while that is not known"),
        Tensor(
            "video", "UINT8", (-1,), "next bytes of the video: fragmented MP4, or WebM if the background is transparent"
        ),
        Tensor("summary", "BYTES", (1,), "the last response: a JSON object"),
    ),
    streams=True,
)
LIVE = Model(
    "live",
    "a session: a face once, then speech while it is spoken in, frames out",
    (
        Tensor(
            FACE_FILE, "UINT8", (-1,), "with the first request: an image or short video, as bytes of the file", True
        ),
        Tensor(
            "audio",
            "FP32",
            (-1,),
            "the next part of the speech, mono at `sample_rate`, full scale ±1, at least 20 ms (at 16 kHz, "
            "320 samples)",
            True,
        ),
        Tensor("pcm", "INT16", (-1,), "the same as 16-bit integers; send one of the two", True),
        _text("format", "with the first request, the format of the frames: `bgr` (the default), `jpeg` or `mouth`"),
        *_AVATAR_OPTIONS,
        *_choices(NOT_LIVE),
        _text(
            SESSION_TOKEN,
            "with each request after the first: the token that `session` contains; with a first request, an empty text "
            "protects the session from its start",
        ),
        Tensor(
            RECEIVED,
            "INT32",
            (1,),
            "the `index` of the last frame that the caller has read, -1 for none; such a session is not taken for one "
            "whose caller does not read",
            True,
        ),
        Tensor(
            LIVE_SAMPLE_RATE,
            "INT32",
            (1,),
            "with the first request: the rate of `audio` and `pcm` in Hz, 8000 to 48000; default 16000",
            True,
        ),
        _text(ECHO, "with the first request: `true` to get with each frame the sound that belongs to it"),
        _text(
            PREPARED_AVATAR,
            "with the first request, in place of `face_file` and the options: id of a prepared avatar, from `session`",
        ),
        Tensor(
            NEW_SEQUENCE,
            "INT32",
            (1,),
            "with the first request: 1 to get a secret `sequence_id` from the server, in `session`",
            True,
        ),
        Tensor(
            CLEAR,
            "INT32",
            (1,),
            "drop all speech and frames that were not sent yet; the value is the `index` of the last frame that was "
            "shown, -1 for the last one that was sent",
            True,
        ),
        Tensor(SEGMENT_END, "INT32", (1,), "1 to end the segment after the speech of this request", True),
        Tensor(
            REST,
            "INT32",
            (1,),
            "frames of the face at rest after the speech of this request: their number, or -1 for frames in real time "
            "until the next request; ends the segment",
            True,
        ),
    ),
    (
        Tensor("session", "BYTES", (1,), "the first response: a JSON object"),
        Tensor("index", "INT32", (1,), "a frame's number; it is shown at index / fps seconds of the speech"),
        Tensor("frame", "UINT8", (-1, -1, 3), "the frame, BGR; in the format `mouth`, the inside of its box"),
        Tensor("jpeg", "UINT8", (-1,), "the frame as a JPEG, instead of `frame`"),
        Tensor("box", "INT32", (4,), "x1 y1 x2 y2 of its face in pixels; all 0 if it shows none"),
        Tensor("summary", "BYTES", (1,), "the last response: a JSON object"),
        Tensor("sound", "INT16", (-1,), "with `echo`, the sound that belongs to the frame, at `sample_rate`"),
        Tensor(
            "sound_time",
            "FP64",
            (1,),
            "with `echo`, where in all of the speech that was sent the first sample of `sound` is, in seconds; -1 for "
            "none of it",
        ),
        Tensor("segment", "BYTES", (1,), "after the last frame of a segment: a JSON object"),
        Tensor("cleared", "BYTES", (1,), "the answer to `clear`: a JSON object"),
    ),
    streams=True,
    sequences=True,
)

MODELS: tuple[Model, ...] = (
    MEL_SPECTROGRAM,
    S3FD,
    FACE_NMS,
    DETECT_FACES,
    FACE_CROP,
    WAV2LIP,
    WAV2LIP_GAN,
    LIPSYNC,
    LIPSYNC_GAN,
    FACE_PASTE,
    LIPSYNC_CLIP,
    SEGMENTATION,
    AVATAR,
    LIVE,
)
