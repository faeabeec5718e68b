"""The files that samples are made of; apart from `samples`, which takes seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.load import sha256
from ..errors import ExportError

_SHIPPED = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True)
class Media:
    """The files that samples are made of.

    Attributes:
        frames: pictures and videos with a face in them.
        speech: recordings in any format that libsndfile reads.
    """

    frames: tuple[Path, ...]
    speech: tuple[Path, ...]

    @classmethod
    def shipped(cls) -> Media:
        """The portrait, the face and the speech in `samples/`."""
        return cls((_SHIPPED / "face.png", _SHIPPED / "portrait.png"), (_SHIPPED / "speech.wav",))

    def hashes(self) -> dict[str, list[str]]:
        """SHA-256 of each file, by kind.

        Raises:
            ExportError: one of them is missing.
        """
        for path in (*self.frames, *self.speech):
            if not path.is_file():
                raise ExportError(f"{path}: no such file; it was named for calibration (--frames, --speech)")
        return {"frames": [sha256(path) for path in self.frames], "speech": [sha256(path) for path in self.speech]}
