"""Build ffmpeg's arguments, as pure functions that can be read and tested without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lipsync.mel import SAMPLE_RATE

from ..options import Quality
from .codecs import Codec, codec_args
from .threads import PROBE_THREADS, decoder_threads

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

# The mean of all channels, however many there are and whatever their layout is: `pan` ignores channels that the audio
# does not have, and `<` scales the gains of the others to a sum of 1.
MAX_CHANNELS = 64  # of the filter `pan`
MEAN_OF_CHANNELS = "aformat=sample_fmts=fltp,pan=mono|c0<" + "+".join(f"c{n}" for n in range(MAX_CHANNELS))
STEREO = "aformat=channel_layouts=stereo"  # ffmpeg's downmix of a surround layout

# Logs the parameters of the audio once, and once more after each change: ffmpeg then sets up its filters again. Frames
# after the filters have no time, because the time starts again with them.
LOG_CHANGES = r"asplit[all][first];[first]aselect=eq(n\,0),ashowinfo,anullsink;[all]"
NO_TIME = "asetpts=NAN"
# Audio of several recordings is stored once more for the result: 16-bit mono at this rate. Audio of a rate
# below MIN_STREAMED_RATE is raised to it if the result is streamed: an AAC frame of 1024 samples is then a delay of 21
# ms, and not of 128.
JOINED_RATE, MIN_STREAMED_RATE = 48_000, 16_000
MAX_AUDIO_PACKETS = 160_000  # whose times are listed: an hour of AAC or MP3, and 9 MB of text
_AUDIO_PACKETS = ("-map", "0:a:0", "-c", "copy", "-frames:a", str(MAX_AUDIO_PACKETS), "-f", "framecrc", "pipe:1")

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
# The matrix of a video whose file does not name it: players take BT.709 for HD, and BT.601 (as ffmpeg does) below.
HD_WIDTH, HD_HEIGHT = 1280, 720
AS_BT709 = "setparams=colorspace=bt709"

# The frames of a result are BT.601 at every size: OpenCV and others always decode with it, whatever the tags of the
# file say, and players that read the tags show any matrix correctly. This filter tags the frames and changes none.
COLOR_TAGS = "setparams=range=tv:colorspace=smpte170m:color_primaries=bt709:color_trc=bt709"
HARDWARE_DECODER = ("-hwaccel", "cuda")


def untrusted_input(path: Path, max_pixels: int, part: range | None = None) -> list[str]:
    """Return the arguments of an untrusted input: a local file in a known container, and no file that it refers to.

    `part`: only these bytes of the file.

    ffmpeg rejects images far larger than `max_pixels`, including cover art of audio files, before it allocates memory
    for them. (The limit is doubled because codecs round sizes up; `Limits.check_image_size` checks it exactly.)
    """
    pixels = ["-max_pixels", str(2 * max_pixels)]
    protocols, url = "file", f"file:{path}"
    if part is not None:
        protocols, url = "file,subfile", f"subfile,,start,{part.start},end,{part.stop},,:{url}"
    return [*pixels, "-protocol_whitelist", protocols, "-format_whitelist", CONTAINERS, "-i", url]


def probe_video_args(video: Path, max_pixels: int) -> list[str]:
    """Decode one frame, upright, and describe it: see `parse_probe` for stdout, `parse_showinfo` for stderr.

    With `-fps_mode cfr` the time base is the inverse of the rate that ffmpeg, and so OpenCV, reads in the container.
    `V` selects video streams that are not cover art.
    """
    one = ["-map", "0:V:0", "-vf", "showinfo", "-frames:v", "1", "-fps_mode", "cfr"]
    raw = ["-c:v", "rawvideo", "-pix_fmt", "bgr24", "-f", "framecrc", "pipe:1"]
    threads = ["-threads", str(PROBE_THREADS)]
    return [*COMMON_ARGS, "-loglevel", "info", *threads, *untrusted_input(video, max_pixels), *one, *raw]


def probe_audio_args(audio: Path, max_pixels: int) -> list[str]:
    """Describe the first audio stream and list the times of its packets; see `parse_probe` and `parse_pauses`."""
    return [*QUIET_ARGS, *untrusted_input(audio, max_pixels), *_AUDIO_PACKETS]


def packet_times_args(video: Path, max_pixels: int, max_packets: int) -> list[str]:
    """List the times of a video's packets, at most `max_packets`, without decoding; see `parse_packet_times`."""
    packets = ["-map", "0:V:0", "-c", "copy", "-frames:v", str(max_packets), "-f", "framecrc", "pipe:1"]
    return [*QUIET_ARGS, *untrusted_input(video, max_pixels), *packets]


def decode_video_args(
    video: Path,
    max_pixels: int,
    filters: Sequence[str],
    *,
    decoder: str = "",
    alpha: bool = False,
    keeps_filters: bool = False,
    on_gpu: bool = False,
) -> list[str]:
    """Decode a video's frames, upright, through `filters`, as raw 8-bit BGR on stdout.

    Args:
        video: the file.
        max_pixels: as `untrusted_input`.
        filters: ffmpeg filters.
        decoder: ffmpeg's name of the decoder; empty for its own choice.
        alpha: give BGRA instead.
        keeps_filters: keep the filters when the size of the frames changes on the way, instead of setting them up
            again, so that they continue to count. The first filter has to accept every size.
        on_gpu: decode on the GPU; the frames are copied to main memory before the filters.
    """
    threads = str(decoder_threads())
    choices = [*(("-reinit_filter", "0") if keeps_filters else ()), *(("-c:v", decoder) if decoder else ())]
    choices += ["-threads", threads, *(HARDWARE_DECODER if on_gpu else ())]
    frames = ["-map", "0:V:0", *(("-vf", ",".join(filters)) if filters else ()), "-fps_mode", "passthrough"]
    raw = ["-f", "rawvideo", "-pix_fmt", "bgra" if alpha else "bgr24", "pipe:1"]
    return [*QUIET_ARGS, "-filter_threads", threads, *choices, *untrusted_input(video, max_pixels), *frames, *raw]


def decode_audio_args(
    audio: Path, max_pixels: int, out: Path, *, is_finite: bool, seconds: int, described: bool = False
) -> list[str]:
    """Decode at most `seconds` of audio to raw 32-bit floats, 16 kHz mono, in `out`; see `parse_formats` for stderr.

    Audio that may hold NaN (not `is_finite`) passes `SANITIZE` first. `described`: the same run also writes what
    `probe_audio_args` asks for to stdout.
    """
    packets = _AUDIO_PACKETS if described else ()
    filters = f"{'' if is_finite else SANITIZE + ','}{LOG_CHANGES}{_mono(SAMPLE_RATE)}"
    loud = [*COMMON_ARGS, "-nostats", "-loglevel", "info"]
    raw = _raw_audio(filters, "f32le", seconds * SAMPLE_RATE * 4, out)
    return [*loud, *untrusted_input(audio, max_pixels), *packets, *raw]


def join_audio_args(
    audio: Path, max_pixels: int, part: range | None, pcm: Path, sound: Path, *, seconds: int
) -> list[str]:
    """Decode a part of the audio twice: as `decode_audio_args` into `pcm`, and as 16-bit mono, 48 kHz, into `sound`."""
    return [
        *QUIET_ARGS,
        *untrusted_input(audio, max_pixels, part),
        *_raw_audio(f"{SANITIZE},{_mono(SAMPLE_RATE)}", "f32le", seconds * SAMPLE_RATE * 4, pcm),
        *_raw_audio(f"{SANITIZE},{_mono(JOINED_RATE)}", "s16le", seconds * JOINED_RATE * 2, sound),
    ]


def _mono(rate: int) -> str:
    return f"aresample={rate},{MEAN_OF_CHANNELS},{NO_TIME}"


def _raw_audio(filters: str, sample_format: str, max_bytes: int, out: Path) -> list[str]:
    """Return the arguments of a raw output; its size is limited, because `-t` would trust the times of the file."""
    return ["-map", "0:a:0", "-af", filters, "-fs", str(max_bytes), "-f", sample_format, "-y", f"file:{out}"]


@dataclass(frozen=True)
class VideoFormat:
    """The video track of a result. Its frames are planes of YUV 4:2:0 (`lipsync.yuv`), of an even size.

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
    """The audio track of a result: a file, and silence up to `seconds`.

    Attributes:
        path: the file.
        is_finite: as in `decode_audio_args`.
        seconds: length of the track.
        max_pixels: as `untrusted_input`.
        rate: samples per second of the file; 0 if it does not matter.
        mix: the filters that mix channels for which there is no common player; empty for mono and stereo.
        is_joined: whether the file is the `sound` of `join_audio_args`.
    """

    path: Path
    is_finite: bool
    seconds: Fraction
    max_pixels: int
    rate: int = 0
    mix: str = ""
    is_joined: bool = False

    @property
    def input_args(self) -> list[str]:
        """Return the arguments of the input."""
        if self.is_joined:
            return ["-f", "s16le", "-ar", str(JOINED_RATE), "-ac", "1", "-i", f"file:{self.path}"]
        return untrusted_input(self.path, self.max_pixels)

    @property
    def filters(self) -> str:
        """Return the filters that make the track."""
        track = f"asetpts=N/SR/TB,apad=whole_dur={float(self.seconds):.6f}"
        return ",".join(filter(None, ("" if self.is_finite else SANITIZE, self.mix, track)))


def encode_args(
    video: VideoFormat,
    audio: AudioInput,
    out: Path | None,
    quality: Quality,
    metadata: Mapping[str, str] | None = None,
    codec: Codec = Codec.X264,
) -> list[str]:
    """Encode raw frames from stdin and the whole audio into the file `out`, or to stdout if `out` is None.

    The result is an MP4 (H.264 yuv420p, AAC, index first; in fragments on stdout), or, with an alpha channel, a WebM
    (VP9 yuva420p, Opus). It has the tags `metadata`, and none of the inputs' tags. Gaps in the timestamps of the
    audio are removed, as for the mel spectrogram. With NVENC, ffmpeg logs when its encoders are open, see
    `ffmpeg_output.OUTPUT_OPEN`.
    """
    pixels = "yuva420p" if video.alpha else "yuv420p"
    raw = ["-pixel_format", pixels, "-video_size", f"{video.width}x{video.height}"]
    rate = f"{video.fps.numerator}/{video.fps.denominator}"
    filters = COLOR_TAGS + (f",setsar={video.aspect.replace(':', '/')}" if video.aspect else "")
    is_slow = out is None and not video.alpha and 0 < audio.rate < MIN_STREAMED_RATE
    return [
        *((*COMMON_ARGS, "-loglevel", "info", "-nostats") if codec is Codec.NVENC else QUIET_ARGS),
        *("-f", "rawvideo", *raw, "-framerate", rate, "-i", "pipe:0"),
        *audio.input_args,
        *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "-1"),
        *("-vf", filters, *codec_args(Codec.VP9 if video.alpha else codec, quality), "-fps_mode", "passthrough"),
        *("-af", audio.filters, *(("-ar", str(JOINED_RATE)) if is_slow else ())),
        *("-c:a", "libopus" if video.alpha else "aac", "-b:a", AUDIO_BITRATE),
        *(part for name, text in (metadata or {}).items() for part in ("-metadata", f"{name}={text}")),
        *(("-f", "webm") if video.alpha else ("-movflags", "+faststart" if out else FRAGMENT_FLAGS, "-f", "mp4")),
        *(
            ("-y", f"file:{out}")
            if out
            else ("-frag_duration", str(FRAGMENT_MICROSECONDS), "-flush_packets", "1", "pipe:1")
        ),
    ]
