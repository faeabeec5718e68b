"""The image, video and audio files from which samples are made.

This is a separate module because `samples` takes seconds to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ExportError
from ..files import sha256

_SHIPPED = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True)
class Media:
    """The files from which samples are made.

    Attributes:
        frames: images and videos that show a face.
        speech: recordings of speech, in any format that libsndfile reads.
    """

    frames: tuple[Path, ...]
    speech: tuple[Path, ...]

    @classmethod
    def shipped(cls) -> Media:
        """Return the portrait, the face and the speech in `samples/`."""
        return cls((_SHIPPED / "face.png", _SHIPPED / "portrait.png"), (_SHIPPED / "speech.wav",))

    def hashes(self) -> dict[str, list[str]]:
        """Return the SHA-256 of each file, by kind.

        Raises:
            ExportError: one of the files is missing.
        """
        for path in (*self.frames, *self.speech):
            if not path.is_file():
                raise ExportError(f"{path}: no such file; check --frames and --speech")
        return {"frames": [sha256(path) for path in self.frames], "speech": [sha256(path) for path in self.speech]}
