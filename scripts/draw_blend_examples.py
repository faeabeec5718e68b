"""Draw docs/images/blend-*.png: one simulated generated face, pasted in both ways. See docs/blending.md.

Needs no weights: the "generated" face is the portrait's own, with its mouth opened, softened and tinted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync.blend import feather
from lipsync.face_crop import crop, paste

ROOT = Path(__file__).resolve().parent.parent
BOX = np.array([214, 142, 416, 394], np.int32)  # of samples/face.png: forehead to below the chin, ear to ear
VIEW = np.s_[90:450, 145:485]  # what the images show
LIPS = (48.0, 65.0)  # where the lips meet in the 96x96 crop: column, row
OPENED = 6.0  # rows by which the jaw goes down
TINT = (7.0, -2.0, -9.0)  # BGR levels: colder than the frame, as the output of trained networks often is

Images = NDArray[np.uint8]


def generated(face: Images) -> Images:
    """Simulate the generator for a face UINT8 [96,96,3]: jaw down, a dark mouth, soft and tinted."""
    y, x = np.mgrid[:96, :96].astype(np.float32)
    aside = ((x - LIPS[0]) / 34).clip(-1, 1)
    below = ((y - LIPS[1]) / 5).clip(0, 1) * ((96 - y) / 14).clip(0, 1)
    down = OPENED * below * (1 - aside**2) ** 2
    moved = cv2.remap(face, x, y - down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    sunk = OPENED / 2 + 1 - 4 * ((x - LIPS[0]) / 17) ** 2  # the corners of the mouth stay up
    inside = ((x - LIPS[0]) / 17) ** 2 + ((y - LIPS[1] - sunk) / 4) ** 2
    dark = ((1.2 - inside) / 0.8).clip(0, 1)[..., None]
    moved += dark * (np.array((30, 25, 60), np.float32) - moved)
    soft = cv2.GaussianBlur(moved, (0, 0), 0.7)
    # more tint in the half that the generator draws
    tint = np.array(TINT, np.float32) * (0.4 + 0.6 * ((y - 40) / 16).clip(0, 1))[..., None]
    image: Images = np.clip(np.rint(soft + tint), 0, 255).astype(np.uint8)
    return image


def main() -> None:
    """Write the images."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    frame = cv2.imread(str(ROOT / "samples" / "face.png")).astype(np.uint8)
    mouth = generated(crop(frame[None], BOX[None])[0])
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    results = {"original": paste(frame[None], BOX[None], mouth[None])[0], "feather": feather(frame, BOX, mouth)}
    for name, image in results.items():
        cv2.imwrite(str(folder / f"blend-{name}.png"), image[VIEW], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
