from fractions import Fraction
from pathlib import Path

from avatar.media import ffmpeg_args
from avatar.options import Quality

FILE = Path("/somewhere/-i; rm x.mp4")
OUT = Path("/out.mp4")
MOST = 1_000_000


def encode_args(fps: Fraction = Fraction(25), *, sane: bool = True, comment: str = "", aspect: str = "") -> list[str]:
    sound = ffmpeg_args.Sound(FILE, sane, Fraction(2), MOST)
    return ffmpeg_args.encode_args(ffmpeg_args.Picture(64, 48, fps, aspect), sound, OUT, Quality.STANDARD, comment)


INPUTS = (
    ffmpeg_args.probe_video_args(FILE, MOST),
    ffmpeg_args.times_args(FILE, MOST, 100),
    ffmpeg_args.probe_speech_args(FILE, MOST),
    ffmpeg_args.decode_args(FILE, MOST, ["fps=25"]),
    ffmpeg_args.speech_args(FILE, MOST, OUT, sane=False, seconds=60),
    encode_args(sane=False),
)


def value(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


def test_an_uploaded_file_is_opened_as_a_plain_file_and_nothing_else() -> None:
    for args in INPUTS:
        at = args.index(f"file:{FILE}")
        assert args[at - 5 : at] == ["-protocol_whitelist", "file", "-format_whitelist", ffmpeg_args.CONTAINERS, "-i"]


def test_no_memory_is_taken_for_pictures_far_over_the_limit() -> None:
    for args in INPUTS:
        at = args.index("-max_pixels")
        assert at < args.index(f"file:{FILE}")  # an option of this input
        assert MOST < int(args[at + 1]) <= 2 * MOST


def test_no_container_that_points_to_other_files_is_let_in() -> None:
    allowed = set(ffmpeg_args.CONTAINERS.split(","))
    assert not allowed & {"hls", "dash", "concat", "concatf", "sdp", "rtsp", "lavfi", "image2", "tty", "imf", "srt"}


def test_ffmpeg_never_waits_for_a_terminal() -> None:
    assert all("-nostdin" in args for args in INPUTS)


def test_the_result_is_made_at_the_exact_frame_rate() -> None:
    args = encode_args(Fraction(24000, 1001))
    assert value(args, "-framerate") == "24000/1001"
    assert value(args, "-video_size") == "64x48"


def test_the_result_is_h264_and_aac_with_its_index_in_front() -> None:
    args = encode_args()
    assert (value(args, "-c:v"), value(args, "-c:a"), value(args, "-movflags")) == ("libx264", "aac", "+faststart")
    assert args[-1] == "file:/out.mp4"
    assert "-shortest" not in args


def test_only_sound_that_may_hold_nan_is_searched_for_it() -> None:
    for sane in (True, False):
        speech = ffmpeg_args.speech_args(FILE, MOST, OUT, sane=sane, seconds=60)
        result = encode_args(sane=sane)
        assert [value(args, "-af").startswith(ffmpeg_args.SANE) for args in (speech, result)] == [not sane] * 2


def test_the_encoder_leaves_cores_to_the_nets() -> None:
    assert ffmpeg_args.encoder_threads() >= 1


def test_a_comment_is_written_only_where_there_is_one() -> None:
    quiet = encode_args()
    loud = encode_args(comment="stand-ins")
    assert "-metadata" not in quiet
    assert value(loud, "-metadata") == "comment=stand-ins"


def test_a_probe_is_read_by_name() -> None:
    text = "#software: x\n#tb 0: 1001/24000\n#dimensions 0: 160x120\n0, 0, 0, 1, 57600, 0xc85c4e07\n"
    assert ffmpeg_args.parse_probe(text) == {"tb": "1001/24000", "dimensions": "160x120"}


def test_a_probe_without_a_packet_is_empty() -> None:
    assert ffmpeg_args.parse_probe("#software: x\n#tb 0: 1/25\n#dimensions 0: 160x120\n") == {}
    assert ffmpeg_args.parse_probe("") == {}


def test_what_a_frame_shows_is_read_by_name_of_the_first_one() -> None:
    words = """Metadata: i:T
[Parsed_showinfo_0 @ 0x7f] n:   0 pts:  0 fmt:yuv420p10le cl:left sar:4/3 s:64x48 i:B iskey:1 type:I
[Parsed_showinfo_0 @ 0x7f] color_range:tv color_space:bt2020nc color_primaries:bt2020 color_trc:smpte2084
[Parsed_showinfo_0 @ 0x7f] n:   1 pts:  1 fmt:yuv420p10le cl:left sar:4/3 s:64x48 i:P iskey:0 type:P
"""
    shown = ffmpeg_args.parse_shown(words)
    assert (shown["i"], shown["color_trc"], shown["sar"]) == ("B", "smpte2084", "4/3")


def test_the_clock_of_a_video_is_read_in_the_order_of_showing() -> None:
    text = "#tb 0: 1/100\n0, 0, 8, 4, 10, 0x1\n0, 4, 0, 4, 10, 0x2, F=0x0\n0, 8, 4, 4, 10, 0x3\n"
    assert ffmpeg_args.parse_times(text) == [Fraction(0), Fraction(4, 100), Fraction(8, 100)]
    assert ffmpeg_args.parse_times("#tb 0: 1/100\n0, 0, NOPTS, 4, 10, 0x1\n") is None
    assert ffmpeg_args.parse_times("") is None


def test_pixels_that_are_not_square_are_told_to_the_player() -> None:
    assert value(encode_args(aspect="4:3"), "-vf").endswith(",setsar=4/3")
    assert "setsar" not in value(encode_args(), "-vf")


def test_every_level_of_quality_is_another_one() -> None:
    levels = {ffmpeg_args.LEVELS[quality] for quality in Quality}
    assert len(levels) == len(Quality)
    assert ffmpeg_args.LEVELS[Quality.STANDARD] == ("veryfast", 18)
