from fractions import Fraction
from pathlib import Path

from avatar import intake, media

FILE = Path("/somewhere/-i; rm x.mp4")
INPUTS = (
    media.probe_video_args(FILE),
    media.probe_speech_args(FILE),
    media.decode_args(FILE),
    media.speech_args(FILE, sane=False, seconds=60),
    media.encode_args(64, 48, Fraction(25), FILE, Path("/out.mp4"), sane=False),
)


def value(args: list[str], option: str) -> str:
    return args[args.index(option) + 1]


def test_an_uploaded_file_is_opened_as_a_plain_file_and_nothing_else() -> None:
    for args in INPUTS:
        at = args.index(f"file:{FILE}")
        assert args[at - 5 : at] == ["-protocol_whitelist", "file", "-format_whitelist", media.CONTAINERS, "-i"]


def test_no_memory_is_taken_for_pictures_far_over_the_limit() -> None:
    for args in INPUTS:
        at = args.index("-max_pixels")
        assert at < args.index(f"file:{FILE}")  # an option of this input
        assert intake.MAX_PIXELS < int(args[at + 1]) <= 2 * intake.MAX_PIXELS


def test_no_container_that_points_to_other_files_is_let_in() -> None:
    allowed = set(media.CONTAINERS.split(","))
    assert not allowed & {"hls", "dash", "concat", "concatf", "sdp", "rtsp", "lavfi", "image2", "tty", "imf", "srt"}


def test_ffmpeg_never_waits_for_a_terminal() -> None:
    assert all("-nostdin" in args for args in INPUTS)


def test_the_result_is_made_at_the_exact_frame_rate() -> None:
    args = media.encode_args(64, 48, Fraction(24000, 1001), FILE, Path("/out.mp4"), sane=True)
    assert value(args, "-framerate") == "24000/1001"
    assert value(args, "-video_size") == "64x48"


def test_the_result_is_h264_and_aac_with_its_index_in_front() -> None:
    args = media.encode_args(64, 48, Fraction(25), FILE, Path("/out.mp4"), sane=True)
    assert (value(args, "-c:v"), value(args, "-c:a"), value(args, "-movflags")) == ("libx264", "aac", "+faststart")
    assert args[-1] == "file:/out.mp4"
    assert "-shortest" not in args


def test_only_sound_that_may_hold_nan_is_searched_for_it() -> None:
    for sane in (True, False):
        speech = media.speech_args(FILE, sane=sane, seconds=60)
        result = media.encode_args(64, 48, Fraction(25), FILE, Path("/out.mp4"), sane=sane)
        assert [value(args, "-af").startswith(media.SANE) for args in (speech, result)] == [not sane] * 2


def test_the_encoder_leaves_cores_to_the_nets() -> None:
    assert media.encoder_threads() >= 1


def test_a_comment_is_written_only_where_there_is_one() -> None:
    quiet = media.encode_args(64, 48, Fraction(25), FILE, Path("/out.mp4"), sane=True)
    loud = media.encode_args(64, 48, Fraction(25), FILE, Path("/out.mp4"), sane=True, comment="stand-ins")
    assert "-metadata" not in quiet
    assert value(loud, "-metadata") == "comment=stand-ins"


def test_a_probe_is_read_by_name() -> None:
    text = "#software: x\n#tb 0: 1001/24000\n#dimensions 0: 160x120\n0, 0, 0, 1, 57600, 0xc85c4e07\n"
    assert media.parse_probe(text) == {"tb": "1001/24000", "dimensions": "160x120"}


def test_a_probe_without_a_packet_is_empty() -> None:
    assert media.parse_probe("#software: x\n#tb 0: 1/25\n#dimensions 0: 160x120\n") == {}
    assert media.parse_probe("") == {}
