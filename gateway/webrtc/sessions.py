"""Run a session over WebRTC beyond the request that has started it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from avatar.streams import start_task
from avatar.tracing import span

from ..authentication import Caller
from ..cancellation import run_until_disconnect
from ..live.failures import describe, kind_of
from ..live.opening import Wanted, open_conversation
from ..live_service import LivePeer
from ..service import Service
from .peer import Peer

logger = logging.getLogger(__name__)

FAREWELL_SECONDS = 0.2  # for the last message of the data channel to leave


async def start_peer(service: Service, caller: Caller, client: str, wanted: Wanted, offer: str, identity: str) -> str:
    """Start a session, and return the answer to its offer; the session goes on by itself. Raises AvatarError."""
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = start_task(_run(service, caller, client, wanted, offer, identity, answered), service.live.tasks)
    try:
        return await answered
    except asyncio.CancelledError:
        running.cancel()  # the caller has gone away before the answer
        raise


async def _run(
    service: Service,
    caller: Caller,
    client: str,
    wanted: Wanted,
    offer: str,
    identity: str,
    answered: asyncio.Future[str],
) -> None:
    """Hold the places of a session for as long as it runs."""
    live = service.live
    with live.connected(), span("live session", transport="webrtc"):
        try:
            with live.hold(client, "webrtc", draining=service.jobs.draining):
                live.count_start(caller)
                with service.forms.hold(caller.tenant, caller.limits):
                    live.peers[identity] = handle = LivePeer(caller.tenant)
                    await _carry(service, caller, wanted, offer, handle, answered)
        except Exception as error:
            if answered.done():
                live.count_error(kind_of(error))
            else:
                answered.set_exception(error)
        finally:
            if peer := live.peers.pop(identity, None):
                peer.ended.set()
            if not answered.done():
                answered.cancel()


async def _carry(
    service: Service, caller: Caller, wanted: Wanted, offer: str, handle: LivePeer, answered: asyncio.Future[str]
) -> None:
    settings = service.settings
    conversation = await run_until_disconnect(open_conversation(service, caller, wanted), service.live.closing)
    try:
        peer = Peer(conversation, settings.webrtc_stun, service.live, settings.live_idle_seconds, handle.gone)
    except BaseException:
        await conversation.close()
        raise
    try:
        answered.set_result(await peer.answer(offer))
        await run_until_disconnect(peer.run(), service.live.closing)
    except Exception as error:
        if answered.done():
            with suppress(Exception):
                peer.say(describe(error, service).model_dump_json(exclude_none=True))
                await asyncio.sleep(FAREWELL_SECONDS)
        raise
    finally:
        await peer.close()
        await conversation.close()
