"""Decide how the results of this process are marked as synthetic, and mark each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InvalidField, MarkFault
from ..settings import JobSettings
from .c2pa_signing import CannotSign, Signer, SigningFailed
from .synthetic import DIGITAL_SOURCE_TYPE, SOURCE_TYPE_TAG, comment, xmp_box

logger = logging.getLogger("avatar")

C2PA, NONE = "c2pa", "none"  # values of the setting
STREAMED = (
    "mark: the video was sent while it was made, so it has no C2PA manifest; its metadata say that it is synthetic"
)
NOT_MP4 = "mark: a WebM cannot hold a C2PA manifest; the metadata of the video say that it is synthetic"
FAILED = "mark: the C2PA manifest could not be signed; the metadata of the video say that it is synthetic"
NEEDS_MP4 = (
    "Transparent gives a WebM, which cannot hold the C2PA manifest that this service requires; choose another value"
)


@dataclass(frozen=True)
class Mark:
    """The marks of one result.

    Attributes:
        metadata: tags of the container, by ffmpeg's names.
        xmp: the box with the XMP packet, for an MP4; otherwise empty.
        signer: signs the finished MP4; None if it is not signed.
        is_required: whether a result that cannot be signed is an error.
        note: says that the result is not signed although the settings ask for it; otherwise empty.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    xmp: bytes = b""
    signer: Signer | None = None
    is_required: bool = False
    note: str = ""

    async def sign(self, path: Path) -> str:
        """Sign the finished file, in place, if it is to be signed; return a note if that failed, or an empty string.

        Raises:
            MarkFault: it failed, and the settings require it.
        """
        if self.signer is None:
            return ""
        try:
            await self.signer.sign(path)
        except SigningFailed as error:
            if self.is_required:
                raise MarkFault("the video cannot be signed") from error
            logger.error("a video could not be signed: %s", error)
            return FAILED
        return ""


UNMARKED = Mark()


class Marker:
    """Marks the results of a process, as the settings say."""

    def __init__(self, kind: str, signer: Signer | None = None, *, is_required: bool = False) -> None:
        """Keep the choice; `of` makes it from the settings.

        Args:
            kind: `metadata`, `c2pa` or `none`.
            signer: of `c2pa`.
            is_required: whether no result may leave without its mark.
        """
        self._kind, self._signer, self._is_required = kind, signer, is_required

    @classmethod
    def of(cls, settings: JobSettings) -> Marker:
        """Return the marker of the settings. Raises CannotSign."""
        signer = None
        if settings.mark == C2PA and settings.c2pa_certificate and settings.c2pa_key:
            signer = Signer.load(settings.c2pa_certificate, settings.c2pa_key)
        return cls(settings.mark, signer, is_required=settings.mark_required)

    def try_out(self) -> None:
        """Sign a test picture, if results are signed. Raises CannotSign."""
        if self._signer:
            self._signer.try_out()

    def mark(self, container: str, stand_ins: tuple[str, ...], *, streamed: bool) -> Mark:
        """Return the marks of a result.

        Args:
            container: `mp4` or `webm`.
            stand_ins: names of the models that ran on stand-in checkpoints.
            streamed: whether it is sent in chunks.

        Raises:
            InvalidField: the result could not have the mark that the settings require.
        """
        is_marked, is_mp4 = self._kind != NONE, container == "mp4"
        metadata = {"comment": text} if (text := comment(stand_ins, is_marked=is_marked)) else {}
        if is_marked and not is_mp4:
            metadata[SOURCE_TYPE_TAG] = DIGITAL_SOURCE_TYPE
        signer, note = self._signer, ""
        if signer and not is_mp4:
            if self._is_required:
                raise InvalidField("background", NEEDS_MP4)
            signer, note = None, NOT_MP4
        if signer and streamed and not self._is_required:
            signer, note = None, STREAMED
        xmp = xmp_box() if is_marked and is_mp4 else b""
        return Mark(metadata, xmp, signer, self._is_required, note)


METADATA = Marker("metadata")  # the default


def failure_of_mark(settings: JobSettings) -> str:
    """Sign a test picture if results are signed; return a sentence that says why that fails, or an empty string."""
    try:
        Marker.of(settings).try_out()
    except CannotSign as error:
        return f"cannot start: {error}"
    return ""
