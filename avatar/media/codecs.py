"""The video codecs of a result, and their arguments for ffmpeg at each quality."""

from __future__ import annotations

from enum import Enum

from ..options import Quality
from .threads import encoder_threads


class Codec(Enum):
    """An encoder; its value is the name in the response of a job."""

    X264 = "x264"
    NVENC = "nvenc"  # H.264 on an NVIDIA GPU
    VP9 = "vp9"  # with an alpha channel


# Preset and constant rate factor of x264. `standard` keeps the texture of a face, at a preset that takes less time than
# the models on any machine, with a cheaper search for motion and more B-frames (ADR 30).
H264_LEVELS = {
    Quality.DRAFT: ("ultrafast", 26),
    Quality.STANDARD: ("veryfast", 18),
    Quality.HIGH: ("medium", 14),
    Quality.SMALL: ("slow", 24),
}
_STANDARD_SEARCH = "me=dia:subme=1:bframes=5"
# Preset and constant quality of NVENC, which counts quality in steps of about the same size as x264.
NVENC_LEVELS = {
    Quality.DRAFT: ("p1", 29),
    Quality.STANDARD: ("p4", 21),
    Quality.HIGH: ("p6", 17),
    Quality.SMALL: ("p7", 27),
}
# Speed and constant quality of VP9.
VP9_LEVELS = {
    Quality.DRAFT: (8, 40),
    Quality.STANDARD: (6, 26),
    Quality.HIGH: (4, 16),
    Quality.SMALL: (4, 36),
}
KEY_FRAMES = 250  # at most this many frames from one key frame to the next, as x264 does by itself


def codec_args(codec: Codec, quality: Quality) -> list[str]:
    """Return ffmpeg's arguments for the video encoder."""
    match codec:
        case Codec.X264:
            preset, factor = H264_LEVELS[quality]
            search = ["-x264-params", _STANDARD_SEARCH] if quality is Quality.STANDARD else []
            threads = ["-threads", str(encoder_threads())]
            return ["-c:v", "libx264", "-preset", preset, *search, "-crf", str(factor), *threads]
        case Codec.NVENC:
            preset, factor = NVENC_LEVELS[quality]
            rate = ["-rc", "vbr", "-cq", str(factor), "-b:v", "0"]  # without 0, a default bit rate is the limit
            return ["-c:v", "h264_nvenc", "-preset", preset, *rate, "-profile:v", "high", "-g", str(KEY_FRAMES)]
        case Codec.VP9:
            speed, factor = VP9_LEVELS[quality]
            fast = ["-deadline", "realtime", "-cpu-used", str(speed), "-row-mt", "1", "-auto-alt-ref", "0"]
            threads = ["-threads", str(encoder_threads())]
            return ["-c:v", "libvpx-vp9", "-crf", str(factor), "-b:v", "0", *fast, *threads]
