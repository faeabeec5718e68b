"""Where an export comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Provenance:
    """The checkpoint that an export was made from.

    Attributes:
        sha256: hash of the checkpoint file, in hexadecimal.
        stand_in: whether the checkpoint is a stand-in.
    """

    sha256: str
    stand_in: bool

    @property
    def kind(self) -> str:
        """Return `stand-in` or `real`, the value of the config's `checkpoint` parameter."""
        return "stand-in" if self.stand_in else "real"
