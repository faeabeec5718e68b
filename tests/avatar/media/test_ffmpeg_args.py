from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from avatar.media import codecs, ffmpeg_args, ffmpeg_output
from avatar.media.codecs import Codec
from avatar.options import Quality

FILE = Path("/somewhere/-i; rm x.mp4")
OUT = Path("/out.mp4")
MAX_PIXELS = 1_000_000


def encode_args(
    fps: Fraction = Fraction(25),
    *,
    is_finite: bool = True,
    metadata: Mapping[str, str] | None = None,
    aspect: str = "",
    codec: Codec = Codec.X264,
) -> list[str]:
    sound = ffmpeg_args.AudioInput(FILE, is_finite, Fraction(2), MAX_PIXELS)
    video = ffmpeg_args.VideoFormat(64, 48, fps, aspect)
    return ffmpeg_args.encode_args(video, sound, OUT, Quality.STANDARD, metadata, codec)


INPUTS = (
    ffmpeg_args.probe_video_args(FILE, MAX_PIXELS),
    ffmpeg_args.packet_times_args(FILE, MAX_PIXELS, 100),
    ffmpeg_args.probe_audio_args(FILE, MAX_PIXELS),
    ffmpeg_args.decode_video_args(FILE, MAX_PIXELS, ["fps=25"]),
    ffmpeg_args.decode_audio_args(FILE, MAX_PIXELS, OUT, is_finite=False, seconds=60),
    encode_args(is_finite=False),
)


def value(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


def test_an_untrusted_file_is_opened_as_a_local_file_only() -> None:
    for args in INPUTS:
        at = args.index(f"file:{FILE}")
        assert args[at - 5 : at] == ["-protocol_whitelist", "file", "-format_whitelist", ffmpeg_args.CONTAINERS, "-i"]


def test_a_part_of_an_untrusted_file_is_opened_as_a_part_of_a_local_file_only() -> None:
    args = ffmpeg_args.join_audio_args(FILE, MAX_PIXELS, range(7, 99), OUT, OUT, seconds=60)
    at = args.index(f"subfile,,start,7,end,99,,:file:{FILE}")
    allowed = ["-protocol_whitelist", "file,subfile", "-format_whitelist", ffmpeg_args.CONTAINERS, "-i"]
    assert args[at - 5 : at] == allowed


def test_ffmpeg_rejects_images_far_over_the_limit() -> None:
    for args in INPUTS:
        at = args.index("-max_pixels")
        assert at < args.index(f"file:{FILE}")  # an option of this input
        assert MAX_PIXELS < int(args[at + 1]) <= 2 * MAX_PIXELS


def test_no_container_that_refers_to_other_files_is_accepted() -> None:
    allowed = set(ffmpeg_args.CONTAINERS.split(","))
    assert not allowed & {"hls", "dash", "concat", "concatf", "sdp", "rtsp", "lavfi", "image2", "tty", "imf", "srt"}


def test_ffmpeg_never_waits_for_a_terminal() -> None:
    assert all("-nostdin" in args for args in INPUTS)


def test_the_result_has_the_exact_frame_rate() -> None:
    args = encode_args(Fraction(24000, 1001))
    assert value(args, "-framerate") == "24000/1001"
    assert value(args, "-video_size") == "64x48"


def test_the_result_is_h264_and_aac_with_its_index_first() -> None:
    args = encode_args()
    assert (value(args, "-c:v"), value(args, "-c:a"), value(args, "-movflags")) == ("libx264", "aac", "+faststart")
    assert args[-1] == "file:/out.mp4"
    assert "-shortest" not in args


def test_only_audio_that_may_hold_nan_is_sanitized() -> None:
    for is_finite in (True, False):
        speech = ffmpeg_args.decode_audio_args(FILE, MAX_PIXELS, OUT, is_finite=is_finite, seconds=60)
        result = encode_args(is_finite=is_finite)
        assert [value(args, "-af").startswith(ffmpeg_args.SANITIZE) for args in (speech, result)] == [not is_finite] * 2


def test_each_tag_is_written_and_none_by_default() -> None:
    args = encode_args(metadata={"comment": "stand-ins", "TAG": "a = b"})
    assert "-metadata" not in encode_args()
    assert [args[at + 1] for at, arg in enumerate(args) if arg == "-metadata"] == ["comment=stand-ins", "TAG=a = b"]


def test_a_probe_is_parsed_to_properties() -> None:
    text = "#software: x\n#tb 0: 1001/24000\n#dimensions 0: 160x120\n0, 0, 0, 1, 57600, 0xc85c4e07\n"
    assert ffmpeg_output.parse_probe(text) == {"tb": "1001/24000", "dimensions": "160x120"}


def test_a_probe_without_a_packet_is_empty() -> None:
    assert ffmpeg_output.parse_probe("#software: x\n#tb 0: 1/25\n#dimensions 0: 160x120\n") == {}
    assert ffmpeg_output.parse_probe("") == {}


def test_showinfo_is_parsed_to_the_properties_of_the_first_frame() -> None:
    stderr = """Metadata: i:T
[Parsed_showinfo_0 @ 0x7f] n:   0 pts:  0 fmt:yuv420p10le cl:left sar:4/3 s:64x48 i:B iskey:1 type:I
[Parsed_showinfo_0 @ 0x7f] color_range:tv color_space:bt2020nc color_primaries:bt2020 color_trc:smpte2084
[Parsed_showinfo_0 @ 0x7f] n:   1 pts:  1 fmt:yuv420p10le cl:left sar:4/3 s:64x48 i:P iskey:0 type:P
"""
    frame = ffmpeg_output.parse_showinfo(stderr)
    assert (frame["i"], frame["color_trc"], frame["sar"]) == ("B", "smpte2084", "4/3")


def test_packet_times_are_parsed_in_presentation_order() -> None:
    text = "#tb 0: 1/100\n0, 0, 8, 4, 10, 0x1\n0, 4, 0, 4, 10, 0x2, F=0x0\n0, 8, 4, 4, 10, 0x3\n"
    assert ffmpeg_output.parse_packet_times(text) == ([Fraction(0), Fraction(4, 100), Fraction(8, 100)], True)
    assert ffmpeg_output.parse_packet_times("#tb 0: 1/100\n") is None
    assert ffmpeg_output.parse_packet_times("") is None


def test_packets_without_a_presentation_time_have_their_decoding_time() -> None:
    none = -(1 << 63)
    text = f"#tb 0: 1/25\n0, 0, {none}, 1, 10, 0x1\n0, 1, {none}, 1, 10, 0x2, F=0x0\n0, 2, 2, 1, 10, 0x3, F=0x0\n"
    assert ffmpeg_output.parse_packet_times(text) == ([Fraction(0), Fraction(1, 25), Fraction(2, 25)], False)
    without = f"#tb 0: 1/25\n0, {none}, {none}, 1, 10, 0x1\n0, NOPTS, NOPTS, 1, 10, 0x1\n"
    assert ffmpeg_output.parse_packet_times(without) is None
    assert len(ffmpeg_output.shown_packets(without)) == 2


def test_packets_that_an_edit_list_hides_and_empty_packets_show_no_frame() -> None:
    text = (
        "#tb 0: 1/25\n0, -1, -1, 1, 9, 0x1, F=0x5\n0, 0, 0, 1, 9, 0x2\n0, 1, 1, 1, 0, 0x0, F=0x0\n0, 2, 2, 1, 9, 0x3\n"
    )
    assert ffmpeg_output.parse_packet_times(text) == ([Fraction(0), Fraction(2, 25)], True)


def test_pauses_are_jumps_of_the_clock_between_packets_of_audio() -> None:
    text = (
        "#tb 0: 1/1000\n0, 0, 0, 20, 9, 0x1\n0, 20, 20, 20, 9, 0x2\n0, 500, 500, 20, 9, 0x3\n0, 521, 521, 20, 9, 0x4\n"
    )
    assert ffmpeg_output.parse_pauses(text, Fraction(1, 10)) == Fraction(460, 1000)
    assert ffmpeg_output.parse_pauses("", Fraction(1, 10)) == 0


def test_the_formats_of_audio_are_listed_at_its_start_and_after_each_change() -> None:
    stderr = """[Parsed_ashowinfo_1 @ 0x1] n:0 pts:0 fmt:flt channels:1 chlayout:mono rate:24000 nb_samples:320
[Parsed_ashowinfo_1 @ 0x2] n:0 pts:9 pts_time:2 fmt:fltp channels:10 chlayout:0 channels rate:44100 nb_samples:320
[Parsed_ashowinfo_1 @ 0x3] n:0 pts:9 pts_time:3 fmt:fltp channels:6 chlayout:5.1(side) rate:48000 nb_samples:320
"""
    assert ffmpeg_output.parse_formats(stderr) == [(1, "mono", 24000), (10, "", 44100), (6, "5.1(side)", 48000)]


def test_the_aspect_of_pixels_that_are_not_square_is_written() -> None:
    assert value(encode_args(aspect="4:3"), "-vf").endswith(",setsar=4/3")
    assert "setsar" not in value(encode_args(), "-vf")


def test_every_quality_has_its_own_level() -> None:
    for levels in (codecs.H264_LEVELS, codecs.NVENC_LEVELS, codecs.VP9_LEVELS):
        assert len({levels[quality] for quality in Quality}) == len(Quality)
    assert codecs.H264_LEVELS[Quality.STANDARD] == ("veryfast", 18)


def test_only_the_standard_quality_searches_for_motion_in_a_way_of_its_own() -> None:
    searches = {quality: "-x264-params" in codecs.codec_args(Codec.X264, quality) for quality in Quality}
    assert searches == {quality: quality is Quality.STANDARD for quality in Quality}


def test_frames_go_to_the_encoder_without_a_conversion() -> None:
    for codec in (Codec.X264, Codec.NVENC):
        args = encode_args(codec=codec)
        assert value(args, "-pixel_format") == "yuv420p"
        assert value(args, "-vf") == ffmpeg_args.COLOR_TAGS
        assert "-pix_fmt" not in args


def test_only_an_encoder_on_a_gpu_logs_that_it_is_open() -> None:
    assert value(encode_args(), "-loglevel") == "error"
    args = encode_args(codec=Codec.NVENC)
    assert (value(args, "-loglevel"), value(args, "-c:v"), value(args, "-cq")) == ("info", "h264_nvenc", "21")
    assert "-nostats" in args


def test_a_video_with_opacity_is_always_encoded_as_vp9() -> None:
    sound = ffmpeg_args.AudioInput(FILE, True, Fraction(2), MAX_PIXELS)
    video = ffmpeg_args.VideoFormat(64, 48, Fraction(25), alpha=True)
    args = ffmpeg_args.encode_args(video, sound, OUT, Quality.STANDARD, codec=Codec.NVENC)
    assert (value(args, "-c:v"), value(args, "-pixel_format")) == ("libvpx-vp9", "yuva420p")


def test_a_gpu_decodes_only_where_that_is_chosen() -> None:
    assert "-hwaccel" not in ffmpeg_args.decode_video_args(FILE, MAX_PIXELS, [])
    args = ffmpeg_args.decode_video_args(FILE, MAX_PIXELS, [], on_gpu=True)
    assert args.index("-hwaccel") < args.index("-i")
    assert value(args, "-hwaccel") == "cuda"


def test_the_codec_of_a_video_is_read_from_the_log() -> None:
    line = "  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 64x48, 25 fps"
    assert ffmpeg_output.video_codec(f"Input #0\n{line}\n") == "h264"
    assert ffmpeg_output.video_codec("Input #0\n  Stream #0:0: Audio: aac\n") == ""
