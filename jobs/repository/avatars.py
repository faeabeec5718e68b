"""Kept faces: files that jobs may name in place of a face of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from ..database import Database
from ..errors import AvatarInUse, AvatarNotFound
from ..records import StoredFile

NOT_FOUND = "there is no such avatar"
IN_USE = "the avatar is used by a job that has not ended; wait for the job, or cancel it"


@dataclass(frozen=True)
class Avatar:
    """A kept face.

    Attributes:
        number: grows with every kept face; lists are in its order.
        face_type: as the caller sent it.
        width, height: of its frames.
        frames: of a video; None for an image.
    """

    id: UUID
    number: int
    tenant: str
    file: StoredFile
    face_type: str
    width: int
    height: int
    frames: int | None
    created_at: datetime
    used_at: datetime


def avatar_key(avatar_id: UUID) -> str:
    """Return the key of the file in the store."""
    return f"avatars/{avatar_id}"


async def add(
    database: Database,
    avatar_id: UUID,
    tenant: str,
    file: StoredFile,
    face_type: str,
    looked_at: Mapping[str, int | None],
) -> Avatar:
    """Keep a face whose file is in the store; `looked_at` has its width, height and frames."""
    (row,) = await database.fetch(
        """
        INSERT INTO avatars (id, tenant, file, file_bytes, face_type, looked_at)
        VALUES (%s, %s, %s, %s, %s, %s) RETURNING *
        """,
        avatar_id,
        tenant,
        Jsonb(asdict(file)),
        file.size,
        face_type,
        Jsonb(dict(looked_at)),
    )
    return _avatar_of(row)


async def get(database: Database, tenant: str, avatar_id: UUID) -> Avatar:
    """Return a kept face of the tenant. Raises AvatarNotFound, DatabaseUnavailable."""
    query = "SELECT * FROM avatars WHERE id = %s AND tenant = %s"
    return _only(await database.fetch(query, avatar_id, tenant))


async def use(database: Database, tenant: str, avatar_id: UUID) -> Avatar:
    """Return a kept face, which counts as used now. Raises as `get`."""
    query = "UPDATE avatars SET used_at = now() WHERE id = %s AND tenant = %s RETURNING *"
    return _only(await database.fetch(query, avatar_id, tenant))


async def page(database: Database, tenant: str, before: int | None = None, limit: int = 50) -> list[Avatar]:
    """Return the tenant's kept faces, newest first: those with a number below `before`."""
    query = "SELECT * FROM avatars WHERE tenant = %s AND number < %s ORDER BY number DESC LIMIT %s"
    rows = await database.fetch(query, tenant, 2**63 - 1 if before is None else before, limit)
    return [_avatar_of(row) for row in rows]


async def remove(database: Database, tenant: str, avatar_id: UUID) -> None:
    """Forget a kept face; its file has to be removed from the store afterwards.

    Raises:
        AvatarNotFound: the tenant has no such face.
        AvatarInUse: a job that has not ended uses it.
        DatabaseUnavailable: the database does not answer.
    """
    removed = await database.fetch(
        """
        DELETE FROM avatars WHERE id = %s AND tenant = %s AND NOT EXISTS (
            SELECT 1 FROM jobs WHERE jobs.avatar = avatars.id AND jobs.state IN ('queued', 'running')
        ) RETURNING 1
        """,
        avatar_id,
        tenant,
    )
    if not removed:
        await get(database, tenant, avatar_id)
        raise AvatarInUse(IN_USE)


def _only(rows: list[DictRow]) -> Avatar:
    if not rows:
        raise AvatarNotFound(NOT_FOUND)
    return _avatar_of(rows[0])


def _avatar_of(row: DictRow) -> Avatar:
    return Avatar(
        id=row["id"],
        number=row["number"],
        tenant=row["tenant"],
        file=StoredFile(**row["file"]),
        face_type=row["face_type"],
        width=row["looked_at"]["width"],
        height=row["looked_at"]["height"],
        frames=row["looked_at"]["frames"],
        created_at=row["created_at"],
        used_at=row["used_at"],
    )
