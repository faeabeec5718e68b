"""`GET /v1/live`: the WebSocket of a live session, and the answer to who asks for it without an upgrade."""

from __future__ import annotations

from fastapi import APIRouter, Response, WebSocket
from fastapi.responses import JSONResponse

from avatar.errors import AvatarError, ClientError
from avatar.tracing import request_id
from jobs.keys import KeyLimits

from ..authentication import ANYBODY, CHALLENGE, Caller, Unauthorized, authenticate, sent_key
from ..codes import ErrorCode
from ..endpoint import ServiceDep
from ..errors import error_body
from ..middleware import ERROR
from ..service import Service
from ..socket_connection import LIVE_PATH
from .messages import SUBPROTOCOL
from .origins import is_allowed
from .socket import LiveSocket

router = APIRouter()


class ForeignOrigin(ClientError):
    """The page of another web site opens the connection."""

    status = 403
    code = ErrorCode.FOREIGN_ORIGIN


class UpgradeRequired(ClientError):
    """The request is no WebSocket."""

    status = 426
    code = ErrorCode.UPGRADE_REQUIRED


@router.get(LIVE_PATH, include_in_schema=False)  # OpenAPI does not describe WebSockets
async def live_without_upgrade(service: ServiceDep) -> Response:
    """Say what the path is for."""
    service.live.check_enabled()
    error = UpgradeRequired("this is a WebSocket: connect to it as ws:// or wss://")
    content = error_body(LIVE_PATH, str(error), error.code)
    return JSONResponse(content, error.status, {"Upgrade": "websocket", "Connection": "Upgrade"})


@router.websocket(LIVE_PATH)
async def live(websocket: WebSocket) -> None:
    """Accept a caller, unless that is wrong whatever its messages are."""
    service: Service = websocket.app.state.service
    try:
        caller = _check(websocket, service)
    except AvatarError as error:
        await _reject(websocket, error)
        return
    offered = websocket.scope["subprotocols"]
    headers = [(b"x-request-id", request_id.get().encode())]
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None, headers)
    await LiveSocket(websocket, service, caller).run()


def _check(websocket: WebSocket, service: Service) -> Caller | None:
    """Return the caller that a header names; None where the first message has to. Raises AvatarError."""
    service.live.check_enabled()
    if not is_allowed(websocket.headers, service.settings.cors_origins):
        raise ForeignOrigin("pages of this web site may not use the service; its operator allows them by setting")
    if service.keys is None:
        return ANYBODY
    sent = sent_key(websocket.headers)
    return authenticate(service.keys, KeyLimits.of(service.settings), sent) if sent else None


async def _reject(websocket: WebSocket, error: AvatarError) -> None:
    websocket.scope["state"][ERROR] = type(error).__name__
    headers = {"X-Request-ID": request_id.get(), "X-Content-Type-Options": "nosniff"}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = CHALLENGE
    await websocket.send_denial_response(
        JSONResponse(error_body(LIVE_PATH, str(error), error.code), error.status, headers)
    )
