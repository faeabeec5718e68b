"""Start a session of the model `live` with the face that a caller names or sends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from avatar.errors import InvalidField, StorageFault, TooLarge, Unavailable
from avatar.inference.live_failures import AvatarForgotten
from avatar.inference.live_stream import Inputs, LiveSource, OffersLive, Value
from avatar.settings import MIB
from jobs.repository import avatars
from jobs.store import MissingBlob
from lipsync.arrays import Array
from lipsync.tensors import FACE_FILE, FACE_TYPE, PREPARED_AVATAR

from ..authentication import Caller
from ..service import Service
from .conversation import Conversation, first_inputs

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """The session that a caller asks for.

    Attributes:
        avatar: id of a kept face or of a prepared avatar.
        face: the bytes of a file, in place of that.
        options: as texts, by name.
    """

    sample_rate: int
    rest: bool
    options: Mapping[str, str]
    avatar: str | None = None
    face: bytes | None = None

    def __post_init__(self) -> None:
        if self.avatar and not self.is_kept and self.options:
            raise InvalidField("options", "a prepared avatar has its options already; leave them out")

    @property
    def is_kept(self) -> bool:
        """Whether `avatar` is the id of a face kept by `POST /v1/avatars`."""
        return self.avatar is not None and _UUID.fullmatch(self.avatar) is not None


def check_face_size(service: Service, size: int, field: str) -> None:
    """Return if a face may have this size in bytes. Raises TooLarge."""
    most = min(service.settings.live_face_mib * MIB, service.settings.max_upload_bytes)
    if size > most:
        raise TooLarge(f"{field}: a face of a live session may have at most {most} bytes, got {size}")


async def open_conversation(service: Service, caller: Caller, wanted: Wanted) -> Conversation:
    """Start a session.

    Raises:
        AvatarError: as the model `live`; AvatarForgotten and AvatarNotFound for an unknown id.
        Unavailable: this gateway has no Triton that could serve it.
    """
    models = service.models
    if not isinstance(models, OffersLive):
        raise Unavailable("the models of this service have no live sessions")
    source = await _open(service, models, caller, wanted)
    return Conversation(source, wanted.sample_rate, rest=wanted.rest)


async def _open(service: Service, models: OffersLive, caller: Caller, wanted: Wanted) -> LiveSource:
    first: Inputs = {**first_inputs(wanted.sample_rate, rest=wanted.rest), **wanted.options}
    if wanted.face is not None:
        return await models.live({**first, FACE_FILE: np.frombuffer(wanted.face, np.uint8)})
    if wanted.avatar and not (wanted.is_kept and service.v1):
        return await models.live({**first, PREPARED_AVATAR: wanted.avatar})
    return await _open_kept(service, models, caller, wanted, first)


async def _open_kept(service: Service, models: OffersLive, caller: Caller, wanted: Wanted, first: Inputs) -> LiveSource:
    """Start with a kept face: by the model's own id for it, or, where the model has none, with the file."""
    v1 = service.v1
    assert v1 is not None  # noqa: S101 - for the type
    v1.check_schema()
    kept = await avatars.use(v1.database, caller.tenant, UUID(wanted.avatar))
    key = (kept.id, *sorted(wanted.options.items()))
    if prepared := service.live.prepared.find(key):
        known: dict[str, Value] = {**first_inputs(wanted.sample_rate, rest=wanted.rest), PREPARED_AVATAR: prepared}
        with suppress(AvatarForgotten):
            return await models.live(known)
        service.live.prepared.forget(key)
    check_face_size(service, kept.file.size, "avatar")
    async with service.workspace.folder() as folder:
        path = folder / "face"
        try:
            await v1.store.fetch_file(kept.file.key, path)
        except MissingBlob as error:  # perhaps this process has another store than the one that has kept it
            raise StorageFault("the store does not have the file of the kept face") from error
        face = await asyncio.to_thread(_read, path)
    source = await models.live({FACE_TYPE: kept.face_type, **first, FACE_FILE: face})
    if identity := source.info.get("avatar"):
        service.live.prepared.add(key, str(identity))
    return source


def _read(path: Path) -> Array:
    return np.fromfile(path, np.uint8)
