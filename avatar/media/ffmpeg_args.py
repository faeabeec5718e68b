"""ffmpeg's arguments, as pure functions: what is asked of it can be read and tested without running it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lipsync.mel import SAMPLE_RATE

from ..options import Quality

ALONE = ("-nostdin", "-hide_banner")
QUIET = (*ALONE, "-loglevel", "error")

OVER_MAX_PIXELS = "exceeds specified max pixel count"  # among ffmpeg's words where a picture is

# What people send, by ffmpeg's demuxer names. Nothing here opens a second file or an address: playlists (hls,
# dash, concat, sdp), text (tty, subtitles), scripts (lavfi) and numbered pictures (image2) are not in the list.
CONTAINERS = (
    "mov,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,mxf,ogg,ivf,h264,hevc,av1,mjpeg,gif,apng,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "wav,w64,aiff,au,caf,mp3,aac,ac3,eac3,flac,amr,ape,wv,tta"
)

_SHOWN = re.compile(r"\b(i|sar|color_trc|color_space|color_primaries|fmt): ?([\w:/.-]+)")

SHORTEST = Fraction(1, 5)  # seconds; one mel window: 16 columns, 80 a second. Shorter speech is padded with silence

# NaN and infinities count as 0; what is left stays within a range that the AAC encoder takes (20 dB over full scale)
SANE = "aeval=exprs='if(isnan(val(ch))+isinf(val(ch)),0,clip(val(ch),-10,10))':c=same"

# Preset and constant rate factor of x264. The standard leaves a face's texture alone, at a preset that costs less than
# the nets on any machine.
LEVELS = {
    Quality.DRAFT: ("ultrafast", 26),
    Quality.STANDARD: ("veryfast", 18),
    Quality.HIGH: ("medium", 14),
    Quality.SMALL: ("slow", 24),
}
# Speed and constant quality of VP9.
VP9_LEVELS = {
    Quality.DRAFT: (8, 40),
    Quality.STANDARD: (6, 26),
    Quality.HIGH: (4, 16),
    Quality.SMALL: (4, 36),
}
# An mp4 that is played while it is written: its head is complete with the first fragment (not before: the sound's
# delay would be unknown), and another one follows every so many microseconds. Fragments begin at any frame, not only
# at key frames, so the pictures are those of the file.
FRAGMENTED, FRAGMENT = "+delay_moov+default_base_moof", 500_000
AUDIO_BITS = "128k"  # a second

# Fields of a frame that is interlaced, woven into whole frames; the others pass as they are.
DEINTERLACE = "bwdif=mode=send_frame:deint=interlaced"
# HDR to SDR: to linear light, the gamut of BT.709, highlights rolled off (Hable's curve), back to a gamma.
TO_SDR = (
    "zscale=transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709,tonemap=hable:desat=0,"
    "zscale=transfer=bt709:matrix=bt709:range=tv,format=yuv420p"
)
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")  # PQ and HLG, by ffmpeg's names

# Exact rounding: the fast path shifts grey levels by up to 5. The matrix is BT.601 at every size: OpenCV and others
# decode with it whatever the file says, and players that heed the tags are right with any.
TO_VIDEO = (
    "scale=flags=bicubic+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=smpte170m:color_primaries=bt709:color_trc=bt709"
)


def encoder_threads() -> int:
    """A quarter of the machine: decoding, pasting and above all the nets need the cores at the same time."""
    return max(1, len(os.sched_getaffinity(0)) // 4)


def uploaded(path: Path, max_pixels: int) -> list[str]:
    """An input that someone else wrote: a plain file in a known container, and nothing that it points to.

    Pictures far over `max_pixels` are refused before memory is taken for them, a sound file's cover art too. (Twice
    the limit: codecs round sizes up, and `intake.Limits.refuse_large` holds to it exactly.)
    """
    pixels = ["-max_pixels", str(2 * max_pixels)]
    return [*pixels, "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]


def probe_video_args(video: Path, max_pixels: int) -> list[str]:
    """Decode one frame (turned upright) and describe it: see `parse_probe`, and `parse_shown` for what is logged.

    At a constant frame rate the time base is the inverse of the rate that ffmpeg, and OpenCV with it, reads
    in the container. `V` leaves out cover art.
    """
    one = ["-map", "0:V:0", "-vf", "showinfo", "-frames:v", "1", "-fps_mode", "cfr"]
    raw = ["-c:v", "rawvideo", "-pix_fmt", "bgr24", "-f", "framecrc", "pipe:1"]
    return [*ALONE, "-loglevel", "info", *uploaded(video, max_pixels), *one, *raw]


def probe_speech_args(speech: Path, max_pixels: int) -> list[str]:
    """Describe the first sound stream; see `parse_probe`."""
    one = ["-map", "0:a:0", "-c", "copy", "-frames:a", "1", "-f", "framecrc", "pipe:1"]
    return [*QUIET, *uploaded(speech, max_pixels), *one]


def parse_probe(text: str) -> dict[str, str]:
    """The header of ffmpeg's framecrc format (`#dimensions 0: 640x480`) as a dict, empty where no packet follows."""
    lines = text.splitlines()
    if all(line.startswith("#") or not line for line in lines):
        return {}
    heads = (line[1:].split(" 0: ", 1) for line in lines if line.startswith("#") and " 0: " in line)
    return {name: value.strip() for name, value in heads}


def parse_shown(words: str) -> dict[str, str]:
    """What the filter showinfo logs of the first frame: `i` (P, or T or B: interlaced), `color_trc`, `sar`, …"""
    lines = [line for line in words.splitlines() if "showinfo" in line]
    return {name: value for line in reversed(lines) for name, value in _SHOWN.findall(line)}


def times_args(video: Path, max_pixels: int, most: int) -> list[str]:
    """The clock of a video's packets (at most `most`), without decoding any; see `parse_times`."""
    packets = ["-map", "0:V:0", "-c", "copy", "-frames:v", str(most), "-f", "framecrc", "pipe:1"]
    return [*QUIET, *uploaded(video, max_pixels), *packets]


def parse_times(text: str) -> list[Fraction] | None:
    """Seconds at which each packet is shown, in order; None where one of them does not say."""
    head = re.search(r"^#tb 0: (\d+)/(\d+)$", text, re.M)
    ticks = [line.split(",")[2].strip() for line in text.splitlines() if line.count(",") >= 5 and line[0] != "#"]
    if not head or not ticks or not all(tick.lstrip("-").isdigit() for tick in ticks):
        return None
    base = Fraction(int(head[1]), int(head[2]))
    return [tick * base for tick in sorted(map(int, ticks))]


def decode_args(video: Path, max_pixels: int, filters: Sequence[str]) -> list[str]:
    """A video's frames, upright, through `filters`, as raw BGR (8 bits) on stdout."""
    frames = ["-map", "0:V:0", *(("-vf", ",".join(filters)) if filters else ()), "-fps_mode", "passthrough"]
    return [*QUIET, *uploaded(video, max_pixels), *frames, "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1"]


def speech_args(speech: Path, max_pixels: int, out: Path, *, sane: bool, seconds: int) -> list[str]:
    """Speech as raw 32-bit floats, 16 kHz mono, in `out`, `seconds` at most; through `SANE` unless it is `sane`.

    `rematrix_maxval` makes the mono of a stereo sound its mean, for float sources too.
    """
    mono = f"aresample={SAMPLE_RATE}:rematrix_maxval=1,aformat=sample_fmts=flt:channel_layouts=mono"
    filters = ["-map", "0:a:0", "-af", mono if sane else f"{SANE},{mono}"]
    size = seconds * SAMPLE_RATE * 4  # bytes: a file's own clock (-t) may lie
    return [*QUIET, *uploaded(speech, max_pixels), *filters, "-fs", str(size), "-f", "f32le", "-y", f"file:{out}"]


@dataclass(frozen=True)
class Picture:
    """The pictures of a result: raw BGR frames of an even size.

    Attributes:
        fps: their exact rate.
        aspect: width to height of one of its pixels, as `4:3`; empty for square ones.
        alpha: whether they are BGRA.
    """

    width: int
    height: int
    fps: Fraction
    aspect: str = ""
    alpha: bool = False

    @property
    def container(self) -> str:
        """By its suffix. mp4 has no codec with an alpha channel that players know."""
        return "webm" if self.alpha else "mp4"


@dataclass(frozen=True)
class Sound:
    """The sound of a result: the recording, and silence up to `seconds`; see `speech_args` for `sane`."""

    path: Path
    sane: bool
    seconds: Fraction
    max_pixels: int


def encode_args(picture: Picture, sound: Sound, out: Path | None, quality: Quality, comment: str = "") -> list[str]:
    """Raw BGR frames on stdin and the whole speech into one file, or, where `out` is None, to stdout as they come.

    An mp4 (H.264 yuv420p, AAC, index in front; on stdout in fragments), or with an alpha channel a WebM (VP9 yuva420p,
    Opus). The sound runs without the gaps of its container's clock, as the mel spectrogram hears it.
    """
    pixels = "bgra" if picture.alpha else "bgr24"
    raw = ["-pixel_format", pixels, "-video_size", f"{picture.width}x{picture.height}"]
    rate = f"{picture.fps.numerator}/{picture.fps.denominator}"
    filters = TO_VIDEO.replace("yuv420p", "yuva420p") if picture.alpha else TO_VIDEO
    filters += f",setsar={picture.aspect.replace(':', '/')}" if picture.aspect else ""
    heard = f"asetpts=N/SR/TB,apad=whole_dur={float(sound.seconds):.6f}"
    return [
        *QUIET,
        *("-f", "rawvideo", *raw, "-framerate", rate, "-i", "pipe:0"),
        *uploaded(sound.path, sound.max_pixels),
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "-1"),
        *("-vf", filters, *(_vp9(quality) if picture.alpha else _h264(quality)), "-fps_mode", "passthrough"),
        *("-af", heard if sound.sane else f"{SANE},{heard}"),
        *("-c:a", "libopus" if picture.alpha else "aac", "-b:a", AUDIO_BITS),
        *(("-metadata", f"comment={comment}") if comment else ()),
        *(("-f", "webm") if picture.alpha else ("-movflags", "+faststart" if out else FRAGMENTED, "-f", "mp4")),
        *(("-y", f"file:{out}") if out else ("-frag_duration", str(FRAGMENT), "-flush_packets", "1", "pipe:1")),
    ]


def _h264(quality: Quality) -> list[str]:
    preset, factor = LEVELS[quality]
    return ["-c:v", "libx264", "-preset", preset, "-crf", str(factor), "-threads", str(encoder_threads())]


def _vp9(quality: Quality) -> list[str]:
    speed, factor = VP9_LEVELS[quality]
    fast = ["-deadline", "realtime", "-cpu-used", str(speed), "-row-mt", "1", "-auto-alt-ref", "0"]
    return ["-c:v", "libvpx-vp9", "-crf", str(factor), "-b:v", "0", *fast, "-threads", str(encoder_threads())]
