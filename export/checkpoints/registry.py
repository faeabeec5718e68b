"""The published checkpoints: names, sizes, hashes and download addresses.

Download addresses often disappear, so each file has several. Which of them served a file does not matter: the hash
decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

WAV2LIP_FILE, WAV2LIP_GAN_FILE, S3FD_FILE = "wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth"
SEGMENTATION_FILE = "xception_pascalvoc.pb"
FILES = (WAV2LIP_FILE, WAV2LIP_GAN_FILE, S3FD_FILE, SEGMENTATION_FILE)  # a complete set


@dataclass(frozen=True)
class PublishedFile:
    """One published file.

    Attributes:
        name: the official name, which the whole project uses.
        sources: addresses, best first.
        sha256: the published hash; None if none was published: then the hash of the first download is recorded.
        size: bytes, if known.
        restricted: for research and personal use only.
    """

    name: str
    sources: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None
    restricted: bool = False


_ORIGINAL = "https://github.com/Amaris-AI-MCQAI/avatarai/releases/download/1.0.0/"
_COPY = "https://github.com/justinjohn0306/Wav2Lip/releases/download/models/"
_SPACE = "https://huggingface.co/camenduru/Wav2Lip/resolve/main/checkpoints/"
_AUTHOR = "https://www.adrianbulat.com/downloads/python-fan/"
_PIXELLIB = "https://github.com/ayoolaolafenwa/PixelLib/releases/download/1.1/"
_S3FD_ELSEWHERE = "s3fd-619a316812.pth"

PUBLISHED = (
    PublishedFile(
        WAV2LIP_FILE,
        tuple(source + WAV2LIP_FILE for source in (_ORIGINAL, _COPY, _SPACE)),
        "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
        435_807_851,
        restricted=True,
    ),
    PublishedFile(
        WAV2LIP_GAN_FILE,
        tuple(source + WAV2LIP_GAN_FILE for source in (_ORIGINAL, _COPY, _SPACE)),
        "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
        restricted=True,
    ),
    PublishedFile(
        S3FD_FILE,
        (_ORIGINAL + S3FD_FILE, _COPY + _S3FD_ELSEWHERE, _AUTHOR + _S3FD_ELSEWHERE),
        "619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543",
        89_843_225,
    ),
    PublishedFile(SEGMENTATION_FILE, (_ORIGINAL + SEGMENTATION_FILE, _PIXELLIB + SEGMENTATION_FILE)),
)

LICENSE = """\
The Wav2Lip weights (wav2lip.pth, wav2lip_gan.pth) were trained on the LRS2 data set. Their authors allow research
and personal use only: no commercial use of any kind. Read https://github.com/Rudrabha/Wav2Lip#license-and-citation
before you accept. For commercial use the authors offer other models."""


def with_mirror(published: Sequence[PublishedFile], mirror: str) -> tuple[PublishedFile, ...]:
    """Return the same files with `mirror` as their first source; there they have their official names."""
    base = mirror.rstrip("/") + "/"
    return tuple(replace(file, sources=(base + file.name, *file.sources)) for file in published)
