"""Parse what ffmpeg prints, as pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

# In ffmpeg's messages if an image has more pixels than `-max_pixels`, or if a stream that was asked for is missing.
OVER_MAX_PIXELS = "exceeds specified max pixel count"
NO_SUCH_STREAM = "matches no streams"
OUTPUT_OPEN = b"\nOutput #0, "  # logged at level `info` once all encoders are open and the header is written
NO_TIME = -(1 << 63)  # ffmpeg's number for a packet without a time
DISCARD = 4  # flag of a packet that is decoded but not shown: an edit list hides it

_SHOWINFO_FIELD = re.compile(r"\b(i|sar|color_trc|color_space|color_primaries|fmt): ?([\w:/.-]+)")
_ASHOWINFO = re.compile(r" n: *0 .* channels:(\d+) chlayout:(.*) rate:(\d+) ")
_FLAGS = re.compile(r"F=0x([0-9A-Fa-f]+)")


class AudioFormat(NamedTuple):
    """The parameters of decoded audio; `layout` is ffmpeg's name, and empty where the file names no positions."""

    channels: int
    layout: str
    rate: int


class FrameTimes(NamedTuple):
    """When a video's frames are shown: seconds, sorted. If not `exact`, single times may be wrong by a frame or two."""

    seconds: list[Fraction]
    exact: bool


class Packet(NamedTuple):
    """A packet of a list in ffmpeg's framecrc format; its times are in units of the time base."""

    dts: int
    pts: int
    duration: int
    size: int
    is_shown: bool


def parse_probe(text: str) -> dict[str, str]:
    """Return the header of ffmpeg's framecrc format (`#dimensions 0: 640x480`) as a dict; empty without a packet."""
    lines = text.splitlines()
    if all(line.startswith("#") or not line for line in lines):
        return {}
    heads = (line[1:].split(" 0: ", 1) for line in lines if line.startswith("#") and " 0: " in line)
    return {name: value.strip() for name, value in heads}


def parse_showinfo(stderr: str) -> dict[str, str]:
    """Return what the filter showinfo logs of the first frame: `i` (P, or T or B: interlaced), `color_trc`, `sar`, …"""
    lines = [line for line in stderr.splitlines() if "showinfo" in line]
    return {name: value for line in reversed(lines) for name, value in _SHOWINFO_FIELD.findall(line)}


def is_rotated(stderr: str) -> bool:
    """Return whether ffmpeg logs that the video has a display matrix: it then rotates or flips the frames."""
    return bool(re.search("display ?matrix", stderr, re.I))


def video_codec(stderr: str) -> str:
    """Return ffmpeg's name of the codec of the first video stream that it logs; empty if it logs none."""
    codec = re.search(r"Stream #0.*: Video: (\w+)", stderr)
    return codec[1] if codec else ""


def alpha_codec(stderr: str) -> str:
    """Return the codec of a WebM with a separate alpha channel, `vp8` or `vp9`; empty for any other video."""
    codec = re.search(r"Stream #0.*: Video: (vp[89])\b", stderr)
    return codec[1] if codec and re.search(r"^ *alpha_mode *: *1", stderr, re.M | re.I) else ""


def parse_formats(stderr: str) -> list[AudioFormat]:
    """Return the parameters of the audio at its start and after each change, from what `LOG_CHANGES` logs."""
    found = _ASHOWINFO.findall(stderr)
    return [AudioFormat(int(channels), named_layout(layout), int(rate)) for channels, layout, rate in found]


def named_layout(layout: str) -> str:
    """Return a channel layout by ffmpeg's name; empty where it is only a number of channels."""
    return "" if re.match(r"\d+ channels", layout) else layout


def parse_packet_times(text: str) -> FrameTimes | None:
    """Return the time of each frame that is shown; None if the packets have no times.

    It is the presentation time if every packet has one. Some containers give none, or not to every packet (AVI, MPEG
    program streams, raw streams): then it is the decoding time, which has the same distances, but which ffmpeg may
    have guessed.
    """
    base = _time_base(text)
    packets = shown_packets(text)
    if not base or not packets:
        return None
    ticks = [packet.pts for packet in packets]
    exact = NO_TIME not in ticks
    if not exact:
        ticks = [packet.dts for packet in packets]
    if NO_TIME in ticks:
        return None
    return FrameTimes([tick * base for tick in sorted(ticks)], exact)


def shown_packets(text: str) -> list[Packet]:
    """Return the packets of frames that are shown; an empty one means that the frame before it stays."""
    return [packet for packet in _packets(text) if packet.is_shown and packet.size]


def parse_pauses(text: str, shortest: Fraction) -> Fraction:
    """Return the seconds by which the clock jumps forward between packets of audio, in jumps of at least `shortest`."""
    base = _time_base(text)
    total, end = Fraction(0), None
    for packet in _packets(text) if base else ():
        if packet.pts == NO_TIME or not packet.duration:
            end = None
            continue
        if end is not None and base and (packet.pts - end) * base >= shortest:
            total += (packet.pts - end) * base
        end = packet.pts + packet.duration
    return total


def _time_base(text: str) -> Fraction | None:
    head = re.search(r"^#tb 0: (\d+)/(\d+)$", text, re.M)
    return Fraction(int(head[1]), int(head[2])) if head and int(head[2]) else None


def _packets(text: str) -> Iterator[Packet]:
    for line in text.splitlines():
        cells = line.split(",")
        if line.startswith("#") or len(cells) < 6:
            continue
        try:
            dts, pts, duration, size = (NO_TIME if cell.strip() == "NOPTS" else int(cell) for cell in cells[1:5])
        except ValueError:
            continue  # the last line of a process that was ended
        flags = _FLAGS.search(line) if len(cells) > 6 else None
        yield Packet(dts, pts, duration, size, not (flags and int(flags[1], 16) & DISCARD))
