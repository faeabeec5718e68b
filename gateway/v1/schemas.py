"""Bodies of the calls of `/v1`, besides a job (`jobs.views`)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from jobs.repository.avatars import Avatar
from jobs.views import JobView
from lipsync.tensors import FACE_TYPE

NEXT = "The `cursor` of the next page; null on the last one."


class JobPage(BaseModel):
    """A page of a caller's jobs."""

    jobs: list[JobView] = Field(description="Newest first; `place` is null and `webhooks` is empty here.")
    next: str | None = Field(description=NEXT)


class AvatarView(BaseModel):
    """A kept face."""

    id: UUID
    face_type: str = Field(alias=FACE_TYPE, description="As it was sent; if it was not, `png` or `mp4`.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    frames: int | None = Field(description="Frames of a video; null for an image.")
    size: int = Field(description="Bytes.")
    created_at: datetime

    @classmethod
    def of(cls, avatar: Avatar) -> AvatarView:
        """Return the view of a kept face."""
        return cls(
            id=avatar.id,
            **{FACE_TYPE: avatar.face_type},
            width=avatar.width,
            height=avatar.height,
            frames=avatar.frames,
            size=avatar.file.size,
            created_at=avatar.created_at,
        )


class AvatarPage(BaseModel):
    """A page of a caller's kept faces."""

    avatars: list[AvatarView] = Field(description="Newest first.")
    next: str | None = Field(description=NEXT)
