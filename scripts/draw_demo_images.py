"""Make docs/images/demo.jpg and demo.gif from the results of `make demo`: its contact sheet, and a part of its video.

Run it after a change of the stand-ins: `make demo`, then this program. The GIF has at most LIMIT bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2

from avatar.media.ffmpeg import executable

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 400_000  # bytes
JPEG_QUALITY = 80
START, SECONDS, FPS, WIDTH = 0.4, 4.0, 12.5, 260  # of the GIF; FPS is half of the video's rate
CROP = "crop=iw*0.62:ih:iw*0.19:0"  # the head
FILTER = (
    f"{CROP},fps={FPS},scale={WIDTH}:-2:flags=lanczos,split[a][b];[a]palettegen=stats_mode=diff:max_colors=96[p];[b][p]"
)


def main() -> int:
    """Write both images; return the exit status: 0 done, 1 the GIF is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out", help="folder with demo.mp4 and demo.png (default: out)"
    )
    options = parser.parse_args()
    images = ROOT / "docs" / "images"
    sheet = cv2.imread(str(options.out / "demo.png"))
    if sheet is None:
        parser.error(f"{options.out / 'demo.png'}: cannot be read; run `make demo` first")
    small = cv2.resize(sheet, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(images / "demo.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    gif = images / "demo.gif"
    part = ["-ss", str(START), "-t", str(SECONDS), "-i", str(options.out / "demo.mp4")]
    drawn = ["-filter_complex", f"{FILTER}paletteuse=dither=none:diff_mode=rectangle", "-loop", "0", str(gif)]
    subprocess.run([executable(), "-v", "error", "-y", "-nostdin", *part, *drawn], check=True)
    size = gif.stat().st_size
    print(f"{gif}: {size:,} bytes")
    return 0 if size <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
