"""Build ffmpeg's arguments, as pure functions that can be read and tested without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lipsync.mel import SAMPLE_RATE
from lipsync.triton.cpu import usable_cores

from ..options import Quality

COMMON_ARGS = ("-nostdin", "-hide_banner")
QUIET_ARGS = (*COMMON_ARGS, "-loglevel", "error")

# Accepted containers, by ffmpeg's demuxer names. None of these opens a second file or a URL: playlists (hls, dash,
# concat, sdp), text (tty, subtitles), scripts (lavfi) and numbered images (image2) are not in the list.
CONTAINERS = (
    "mov,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,mxf,ogg,ivf,h264,hevc,av1,mjpeg,gif,apng,"
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "wav,w64,aiff,au,caf,mp3,aac,ac3,eac3,flac,amr,ape,wv,tta"
)

MIN_AUDIO_SECONDS = Fraction(1, 5)  # one mel window: 16 columns, 80 per second. Shorter audio is padded with silence

# Replaces NaN and infinities by 0, and clips the rest to what the AAC encoder accepts (20 dB over full scale).
SANITIZE = "aeval=exprs='if(isnan(val(ch))+isinf(val(ch)),0,clip(val(ch),-10,10))':c=same"

# Preset and constant rate factor of x264. `standard` keeps the texture of a face, at a preset that takes less time than
# the models on any machine.
H264_LEVELS = {
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
# An MP4 that can be played while it is written: its header is written with the first fragment (not before, since the
# delay of the audio is unknown until then), and a fragment follows every FRAGMENT_MICROSECONDS. Fragments start at any
# frame, not only at key frames, so the frames are the same as those of a file.
FRAGMENT_FLAGS, FRAGMENT_MICROSECONDS = "+delay_moov+default_base_moof", 500_000
AUDIO_BITRATE = "128k"  # bits per second

# Combines the fields of interlaced frames; progressive frames pass unchanged.
DEINTERLACE = "bwdif=mode=send_frame:deint=interlaced"
# HDR to SDR: linear light, the gamut of BT.709, highlights compressed (Hable's curve), then the BT.709 transfer curve.
TO_SDR = (
    "zscale=transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709,tonemap=hable:desat=0,"
    "zscale=transfer=bt709:matrix=bt709:range=tv,format=yuv420p"
)
HDR_TRANSFERS = ("smpte2084", "arib-std-b67")  # PQ and HLG, by ffmpeg's names

# Exact rounding: the fast path shifts gray levels by up to 5. The matrix is BT.601 at every size: OpenCV and others
# always decode with it, whatever the tags of the file say, and players that read the tags show any matrix correctly.
TO_YUV = (
    "scale=flags=bicubic+accurate_rnd:out_color_matrix=smpte170m:out_range=tv,format=yuv420p,"
    "setparams=range=tv:colorspace=smpte170m:color_primaries=bt709:color_trc=bt709"
)


def encoder_threads() -> int:
    """Return a quarter of the cores, at least 1: decoding, blending and above all the models run at the same time."""
    return max(1, usable_cores() // 4)


def untrusted_input(path: Path, max_pixels: int) -> list[str]:
    """Return the arguments of an untrusted input: a local file in a known container, and no file that it refers to.

    ffmpeg rejects images far larger than `max_pixels`, including cover art of audio files, before it allocates memory
    for them. (The limit is doubled because codecs round sizes up; `Limits.check_image_size` checks it exactly.)
    """
    pixels = ["-max_pixels", str(2 * max_pixels)]
    return [*pixels, "-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, "-i", f"file:{path}"]


def probe_video_args(video: Path, max_pixels: int) -> list[str]:
    """Decode one frame, upright, and describe it: see `parse_probe` for stdout, `parse_showinfo` for stderr.

    With `-fps_mode cfr` the time base is the inverse of the rate that ffmpeg, and so OpenCV, reads in the container.
    `V` selects video streams that are not cover art.
    """
    one = ["-map", "0:V:0", "-vf", "showinfo", "-frames:v", "1", "-fps_mode", "cfr"]
    raw = ["-c:v", "rawvideo", "-pix_fmt", "bgr24", "-f", "framecrc", "pipe:1"]
    return [*COMMON_ARGS, "-loglevel", "info", *untrusted_input(video, max_pixels), *one, *raw]


def probe_audio_args(audio: Path, max_pixels: int) -> list[str]:
    """Describe the first audio stream; see `parse_probe`."""
    one = ["-map", "0:a:0", "-c", "copy", "-frames:a", "1", "-f", "framecrc", "pipe:1"]
    return [*QUIET_ARGS, *untrusted_input(audio, max_pixels), *one]


def packet_times_args(video: Path, max_pixels: int, max_packets: int) -> list[str]:
    """List the times of a video's packets, at most `max_packets`, without decoding; see `parse_packet_times`."""
    packets = ["-map", "0:V:0", "-c", "copy", "-frames:v", str(max_packets), "-f", "framecrc", "pipe:1"]
    return [*QUIET_ARGS, *untrusted_input(video, max_pixels), *packets]


def decode_video_args(video: Path, max_pixels: int, filters: Sequence[str]) -> list[str]:
    """Decode a video's frames, upright, through `filters`, as raw 8-bit BGR on stdout."""
    frames = ["-map", "0:V:0", *(("-vf", ",".join(filters)) if filters else ()), "-fps_mode", "passthrough"]
    return [*QUIET_ARGS, *untrusted_input(video, max_pixels), *frames, "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1"]


def decode_audio_args(audio: Path, max_pixels: int, out: Path, *, is_finite: bool, seconds: int) -> list[str]:
    """Decode at most `seconds` of audio to raw 32-bit floats, 16 kHz mono, in `out`.

    Audio that may hold NaN (not `is_finite`) passes `SANITIZE` first. `rematrix_maxval` makes the mono channel the mean
    of the stereo channels, for float sources too.
    """
    mono = f"aresample={SAMPLE_RATE}:rematrix_maxval=1,aformat=sample_fmts=flt:channel_layouts=mono"
    filters = ["-map", "0:a:0", "-af", mono if is_finite else f"{SANITIZE},{mono}"]
    size = seconds * SAMPLE_RATE * 4  # bytes: `-t` would trust the timestamps of the file
    return [
        *QUIET_ARGS,
        *untrusted_input(audio, max_pixels),
        *filters,
        "-fs",
        str(size),
        "-f",
        "f32le",
        "-y",
        f"file:{out}",
    ]


@dataclass(frozen=True)
class VideoFormat:
    """The video track of a result. Its frames are raw BGR, or BGRA with `alpha`, of an even size.

    Attributes:
        width, height: size of the frames in pixels.
        fps: the exact frame rate.
        aspect: width to height of a pixel, as `4:3`; empty for square pixels.
        alpha: whether it has an alpha channel.
    """

    width: int
    height: int
    fps: Fraction
    aspect: str = ""
    alpha: bool = False

    @property
    def container(self) -> str:
        """Return the suffix of the container. MP4 has no codec with an alpha channel that common players decode."""
        return "webm" if self.alpha else "mp4"


@dataclass(frozen=True)
class AudioInput:
    """The audio track of a result: a file, and silence up to `seconds`; see `decode_audio_args` for `is_finite`."""

    path: Path
    is_finite: bool
    seconds: Fraction
    max_pixels: int


def encode_args(
    video: VideoFormat, audio: AudioInput, out: Path | None, quality: Quality, comment: str = ""
) -> list[str]:
    """Encode raw frames from stdin and the whole audio into the file `out`, or to stdout if `out` is None.

    The result is an MP4 (H.264 yuv420p, AAC, index first; in fragments on stdout), or, with an alpha channel, a WebM
    (VP9 yuva420p, Opus). Gaps in the timestamps of the audio are removed, as for the mel spectrogram.
    """
    pixels = "bgra" if video.alpha else "bgr24"
    raw = ["-pixel_format", pixels, "-video_size", f"{video.width}x{video.height}"]
    rate = f"{video.fps.numerator}/{video.fps.denominator}"
    filters = TO_YUV.replace("yuv420p", "yuva420p") if video.alpha else TO_YUV
    filters += f",setsar={video.aspect.replace(':', '/')}" if video.aspect else ""
    sound_filters = f"asetpts=N/SR/TB,apad=whole_dur={float(audio.seconds):.6f}"
    return [
        *QUIET_ARGS,
        *("-f", "rawvideo", *raw, "-framerate", rate, "-i", "pipe:0"),
        *untrusted_input(audio.path, audio.max_pixels),
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "-1"),
        *("-vf", filters, *(_vp9(quality) if video.alpha else _h264(quality)), "-fps_mode", "passthrough"),
        *("-af", sound_filters if audio.is_finite else f"{SANITIZE},{sound_filters}"),
        *("-c:a", "libopus" if video.alpha else "aac", "-b:a", AUDIO_BITRATE),
        *(("-metadata", f"comment={comment}") if comment else ()),
        *(("-f", "webm") if video.alpha else ("-movflags", "+faststart" if out else FRAGMENT_FLAGS, "-f", "mp4")),
        *(
            ("-y", f"file:{out}")
            if out
            else ("-frag_duration", str(FRAGMENT_MICROSECONDS), "-flush_packets", "1", "pipe:1")
        ),
    ]


def _h264(quality: Quality) -> list[str]:
    preset, factor = H264_LEVELS[quality]
    return ["-c:v", "libx264", "-preset", preset, "-crf", str(factor), "-threads", str(encoder_threads())]


def _vp9(quality: Quality) -> list[str]:
    speed, factor = VP9_LEVELS[quality]
    fast = ["-deadline", "realtime", "-cpu-used", str(speed), "-row-mt", "1", "-auto-alt-ref", "0"]
    return ["-c:v", "libvpx-vp9", "-crf", str(factor), "-b:v", "0", *fast, "-threads", str(encoder_threads())]
