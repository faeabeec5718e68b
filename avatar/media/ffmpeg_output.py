"""Parse what ffmpeg prints, as pure functions."""

from __future__ import annotations

import re
from fractions import Fraction

# In ffmpeg's messages if an image has more pixels than `-max_pixels`, or if a stream that was asked for is missing.
OVER_MAX_PIXELS = "exceeds specified max pixel count"
NO_SUCH_STREAM = "matches no streams"

_SHOWINFO_FIELD = re.compile(r"\b(i|sar|color_trc|color_space|color_primaries|fmt): ?([\w:/.-]+)")


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


def parse_packet_times(text: str) -> list[Fraction] | None:
    """Return each packet's presentation time in seconds, sorted; None if a packet has none."""
    head = re.search(r"^#tb 0: (\d+)/(\d+)$", text, re.M)
    ticks = [line.split(",")[2].strip() for line in text.splitlines() if line.count(",") >= 5 and line[0] != "#"]
    if not head or not ticks or not all(tick.lstrip("-").isdigit() for tick in ticks):
        return None
    base = Fraction(int(head[1]), int(head[2]))
    return [tick * base for tick in sorted(map(int, ticks))]
