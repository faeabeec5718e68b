"""Start live sessions: of a prepared avatar or a face, on one of several servers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import grpc

from . import _options
from ._errors import InvalidRequest, Unavailable
from ._live import LiveSession
from ._live_inputs import LiveSettings
from ._messages import InputTensor, file_tensor
from ._options import File, LiveOptions
from ._rotation import Rotation
from ._schema import FACE_FILE

FULL = 503  # away, stopping, or at its limit of sessions; another server may have a place
UNKNOWN_AVATAR = 404


def start_session(rotation: Rotation, settings: LiveSettings, face: File | None, options: LiveOptions) -> LiveSession:
    """Start a session of the prepared avatar; of the face without one, or if the server does not know it any more.

    Raises:
        TypeError, OSError, AvatarClientError: as `AvatarClient.live`.
    """
    texts, background_file = _options.texts(options, _options.LIVE_NAMES), options.get("background_file")
    if settings.avatar is not None:
        if face is None:
            looks = _options.inputs(texts, background_file)
        else:  # the options are for the case that the avatar is not known
            looks = _options.inputs({name: text for name, text in texts.items() if name == "format"}, None)
        try:
            return _start(rotation, [*looks, *settings.inputs()])
        except InvalidRequest as error:
            if error.code != UNKNOWN_AVATAR or face is None:
                raise
    if face is None:
        raise TypeError("a face, or the id of a prepared avatar, expected")
    sent = file_tensor(FACE_FILE, _options.read(face))
    looks = _options.inputs(_options.with_type(texts, face), background_file)
    return _start(rotation, [sent, *looks, *replace(settings, avatar=None).inputs()])


def _start(rotation: Rotation, first: Sequence[InputTensor]) -> LiveSession:
    """Start a session on the server whose turn it is, or on another one if that is away or full."""
    start, errors = time.monotonic(), list[Unavailable]()
    for server in rotation.each():
        try:
            return LiveSession(server, rotation.failed, first)
        except Unavailable as error:
            if error.code != FULL:  # the caller is at its limit, wherever it calls
                raise
            errors.append(error)
        if time.monotonic() > start + server.connection.timeout:
            break
    # that a server is full says more than that another one is away
    raise min(errors, key=lambda each: isinstance(each.__cause__, grpc.RpcError))
