"""Names, types and limits of the public models that the client calls.

Their source is `lipsync/tensors.py` of the service, which is not installed with the client: a test of the project
compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

API_VERSION = "1.1"  # of the service's table that this table was written from

SAMPLE_RATE = 16_000  # Hz, of all speech that is sent as samples
FACE_SIZE = 96  # pixels; the side of a mouth
MEL_BANDS, WINDOW_COLUMNS = 80, 16  # of one mel window
FACES = 16  # faces that are detected per frame, at most
MAX_FRAMES = 4  # of one `detect_faces` call
MAX_WINDOWS = 32  # of one `lipsync` call
LIVE_SAMPLE_RATES = (8000, 48_000)  # Hz of the speech of a live session, the lowest and the highest
MIN_SAMPLES = 320  # of one request of a live session at 16 kHz: 20 ms

Array = NDArray[Any]
NUMPY: dict[str, type[np.generic]] = {
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "FP32": np.float32,
    "FP64": np.float64,
}


@dataclass(frozen=True)
class Model:
    """One public model: the types of its tensors by name, in the model's order."""

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


DETECT_FACES = Model("detect_faces", {"frames": "UINT8"}, {"boxes": "FP32", "scores": "FP32"})
MEL_SPECTROGRAM = Model("mel_spectrogram", {"audio": "FP32", "fps": "FP64"}, {"mel": "FP32"})
_LIPSYNC_INPUTS = {"frames": "UINT8", "boxes": "INT32", "mel": "FP32"}
LIPSYNC = {  # by the generator's name
    "wav2lip": Model("lipsync", _LIPSYNC_INPUTS, {"mouths": "UINT8"}),
    "wav2lip_gan": Model("lipsync_gan", _LIPSYNC_INPUTS, {"mouths": "UINT8"}),
}
FACE_PASTE = Model("face_paste", {"frames": "UINT8", "boxes": "INT32", "mouths": "UINT8"}, {"frames": "UINT8"})

FACE_FILE, SPEECH_FILE, BACKGROUND_FILE, FACE_TYPE = "face_file", "audio_file", "background_file", "avatarFileType"
SESSION_TOKEN, RECEIVED = "token", "received"
LIVE_SAMPLE_RATE, ECHO, PREPARED_AVATAR, NEW_SEQUENCE = "sample_rate", "echo", "avatar", "new_sequence"
CLEAR, SEGMENT_END, REST = "clear", "segment_end", "rest"
_AVATAR_INPUTS = {FACE_TYPE: "BYTES", "background": "BYTES", BACKGROUND_FILE: "UINT8"}
_OPTIONS = (
    *("model", "face", "no_face", "detection", "blend", "pads", "smooth", "box", "length", "fps", "resize_factor"),
    *("rotate", "crop", "max_height", "background_edge"),
)
AVATAR = Model(
    "avatar",
    {
        **{FACE_FILE: "UINT8", SPEECH_FILE: "UINT8"},
        **_AVATAR_INPUTS,
        **dict.fromkeys((*_OPTIONS, "quality", "background_video"), "BYTES"),
    },
    {"stage": "BYTES", "done": "INT32", "total": "INT32", "video": "UINT8", "summary": "BYTES"},
)
LIVE = Model(
    "live",
    {
        **{FACE_FILE: "UINT8", "audio": "FP32", "pcm": "INT16", "format": "BYTES"},
        **_AVATAR_INPUTS,
        **dict.fromkeys(_OPTIONS, "BYTES"),
        **{SESSION_TOKEN: "BYTES", RECEIVED: "INT32"},
        **{LIVE_SAMPLE_RATE: "INT32", ECHO: "BYTES", PREPARED_AVATAR: "BYTES", NEW_SEQUENCE: "INT32"},
        **{CLEAR: "INT32", SEGMENT_END: "INT32", REST: "INT32"},
    },
    {
        **{"session": "BYTES", "index": "INT32", "frame": "UINT8", "jpeg": "UINT8", "box": "INT32", "summary": "BYTES"},
        **{"sound": "INT16", "sound_time": "FP64", "segment": "BYTES", "cleared": "BYTES"},
    },
)
