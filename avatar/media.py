"""ffmpeg's arguments, as pure functions: what is asked of it can be read and tested without running it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from lipsync.mel import SAMPLE_RATE

from . import intake

QUIET = ("-nostdin", "-hide_banner", "-loglevel", "error")

OVER_MAX_PIXELS = "exceeds specified max pixel count"  # among ffmpeg's words where a picture is

# What people send, by ffmpeg's demuxer names. Nothing here opens a second file or an address: playlists (hls,
# dash, concat, sdp), text (tty, subtitles), scripts (lavfi) and numbered pictures (image2) are not in the list.
CONTAINERS = (
    "mov,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,mxf,ogg,ivf,h264,hevc,av1,mjpeg,gif,apng,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "wav,w64,aiff,au,caf,mp3,aac,ac3,eac3,flac,amr,ape,wv,tta"
)

SHORTEST = Fraction(1, 5)  # seconds; one mel window: 16 columns, 80 a second. Shorter speech is padded with silence

# NaN and infinities count as 0; what is left stays within a range that the AAC encoder takes (20 dB over full scale)
SANE = "aeval=exprs='if(isnan(val(ch))+isinf(val(ch)),0,clip(val(ch),-10,10))':c=same"

# A constant quality that leaves a face's texture alone, at a preset that costs less than the nets on any machine.
PRESET, QUALITY = "veryfast", "18"
AUDIO_BITS = "128k"  # a second

# Exact rounding: the fast path shifts grey levels by up to 5. The matrix is BT.601 at every size: OpenCV and others
# decode with it whatever the file says, and players that heed the tags are right with any.
TO_VIDEO = (
    "scale=flags=bicubic+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=smpte170m:color_primaries=bt709:color_trc=bt709"
)


def encoder_threads() -> int:
    """A quarter of the machine: decoding, pasting and above all the nets need the cores at the same time."""
    return max(1, len(os.sched_getaffinity(0)) // 4)


def uploaded(path: Path) -> list[str]:
    """An input that someone else wrote: a plain file in a known container, and nothing that it points to.

    Pictures far over the limit are refused before memory is taken for them, a sound file's cover art too. (Twice the
    limit: codecs round sizes up, and `intake.refuse_large` holds to it exactly.)
    """
    pixels = ["-max_pixels", str(2 * intake.MAX_PIXELS)]
    return [*pixels, "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]


def probe_video_args(video: Path) -> list[str]:
    """Decode one frame (turned upright) and describe it; see `parse_probe`.

    At a constant frame rate the time base is the inverse of the rate that ffmpeg, and OpenCV with it, reads
    in the container. `V` leaves out cover art.
    """
    one = ["-map", "0:V:0", "-frames:v", "1", "-fps_mode", "cfr", "-c:v", "rawvideo", "-pix_fmt", "bgr24"]
    return [*QUIET, *uploaded(video), *one, "-f", "framecrc", "pipe:1"]


def probe_speech_args(speech: Path) -> list[str]:
    """Describe the first sound stream; see `parse_probe`."""
    return [*QUIET, *uploaded(speech), "-map", "0:a:0", "-c", "copy", "-frames:a", "1", "-f", "framecrc", "pipe:1"]


def parse_probe(text: str) -> dict[str, str]:
    """The header of ffmpeg's framecrc format (`#dimensions 0: 640x480`) as a dict, empty where no packet follows."""
    lines = text.splitlines()
    if all(line.startswith("#") or not line for line in lines):
        return {}
    heads = (line[1:].split(" 0: ", 1) for line in lines if line.startswith("#") and " 0: " in line)
    return {name: value.strip() for name, value in heads}


def decode_args(video: Path) -> list[str]:
    """A video's frames, every one once, upright, as raw BGR (8 bits) on stdout."""
    frames = ["-map", "0:V:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    return [*QUIET, *uploaded(video), *frames, "pipe:1"]


def speech_args(speech: Path, *, sane: bool, seconds: int) -> list[str]:
    """Speech as raw 32-bit floats, 16 kHz mono, on stdout, `seconds` at most; through `SANE` unless it is `sane`.

    `rematrix_maxval` makes the mono of a stereo sound its mean, for float sources too.
    """
    mono = f"aresample={SAMPLE_RATE}:rematrix_maxval=1,aformat=sample_fmts=flt:channel_layouts=mono"
    filters = ["-map", "0:a:0", "-af", mono if sane else f"{SANE},{mono}"]
    size = seconds * SAMPLE_RATE * 4  # bytes: a file's own clock (-t) may lie
    return [*QUIET, *uploaded(speech), *filters, "-fs", str(size), "-f", "f32le", "pipe:1"]


def encode_args(
    width: int, height: int, fps: Fraction, speech: Path, out: Path, *, sane: bool, comment: str = ""
) -> list[str]:
    """Raw BGR frames on stdin and the whole speech into an mp4: H.264 yuv420p, AAC, index in front.

    The sound runs without the gaps of its container's clock, as the mel spectrogram hears it. `width` and
    `height` are even.
    """
    size = ["-pixel_format", "bgr24", "-video_size", f"{width}x{height}", "-framerate", _ratio(fps)]
    sound = f"asetpts=N/SR/TB,apad=whole_dur={float(SHORTEST)}"
    video = ["-c:v", "libx264", "-preset", PRESET, "-crf", QUALITY, "-threads", str(encoder_threads())]
    return [
        *QUIET,
        *("-f", "rawvideo", *size, "-i", "pipe:0"),
        *uploaded(speech),
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "-1"),
        *("-vf", TO_VIDEO, *video, "-fps_mode", "passthrough"),
        *("-af", sound if sane else f"{SANE},{sound}", "-c:a", "aac", "-b:a", AUDIO_BITS),
        *_comment(comment),
        *("-movflags", "+faststart", "-f", "mp4", "-y", f"file:{out}"),
    ]


def _comment(comment: str) -> Sequence[str]:
    return ("-metadata", f"comment={comment}") if comment else ()


def _ratio(fps: Fraction) -> str:
    return f"{fps.numerator}/{fps.denominator}"
