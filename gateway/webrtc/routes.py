"""`/v1/live/webrtc`: start and end live sessions over WebRTC, in the manner of WHIP (RFC 9725)."""

from __future__ import annotations

import secrets
from importlib.util import find_spec

from fastapi import APIRouter, Request, Response

from avatar.errors import ClientError, InvalidField
from avatar.load import wait_for

from ..authentication import caller_of
from ..clients import client_of
from ..codes import ErrorCode
from ..endpoint import ServiceDep
from ..errors import UnsupportedType
from ..live.messages import check_option_names
from ..live.opening import Wanted
from ..socket_connection import LIVE_PATH
from ..uploads import media_type, receive_text
from .gate import SAMPLE_RATE

PATH = f"{LIVE_PATH}/webrtc"
SDP = "application/sdp"
MAX_OFFER = 1 << 18  # bytes
END_SECONDS = 10.0  # to close the connection and the session, of which each gives up after seconds by itself
_ID_BYTES = 16

router = APIRouter(include_in_schema=False)


class NoWebrtc(ClientError):
    """The package that speaks WebRTC is not installed."""

    status = 501
    code = ErrorCode.NO_WEBRTC


class SessionNotFound(ClientError):
    """The caller has no session with this id."""

    status = 404
    code = ErrorCode.SESSION_NOT_FOUND


@router.post(PATH)
async def start_webrtc(request: Request, service: ServiceDep) -> Response:
    """Answer an SDP offer; the session runs until it is deleted, or the caller is lost."""
    service.live.check_enabled()
    if find_spec("aiortc") is None:
        raise NoWebrtc(
            "WebRTC needs the package aiortc: install it where the gateway runs (the extra `webrtc`), or use the "
            f"WebSocket of {LIVE_PATH}"
        )
    from .sessions import start_peer  # here, because it loads aiortc

    if media_type(request) != SDP:
        raise UnsupportedType(f"send the SDP offer as {SDP}")
    wanted = _wanted(request)
    offer = (await receive_text(request, service.settings, MAX_OFFER)).decode(errors="replace")
    identity = secrets.token_urlsafe(_ID_BYTES)
    client = client_of(request, service.settings.trusted_proxies)
    answer = await start_peer(service, caller_of(request), client, wanted, offer, identity)
    return Response(answer, 201, {"Location": f"{PATH}/{identity}"}, media_type=SDP)


@router.delete(f"{PATH}/{{session_id}}")
async def end_webrtc(session_id: str, request: Request, service: ServiceDep) -> Response:
    """End a session of the caller, who may start the next one when this returns."""
    peer = service.live.peers.get(session_id)
    if peer is None or peer.tenant != caller_of(request).tenant:
        raise SessionNotFound("there is no such live session; it may have ended")
    peer.gone.set()
    await wait_for(peer.ended, END_SECONDS)
    return Response(status_code=204)


def _wanted(request: Request) -> Wanted:
    """Return the session that the query asks for. Raises InvalidField."""
    options = dict(request.query_params)
    avatar = options.pop("avatar", "")
    if not avatar:
        raise InvalidField("avatar", f"the query has to name a face: {PATH}?avatar=ID")
    check_option_names(options)
    return Wanted(SAMPLE_RATE, True, options, avatar)
