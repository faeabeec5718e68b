"""Several Tritons: which one gets a call, which ones are healthy, and how calls go elsewhere.

Every call is pure, so it may be made again on another server. A server that did not answer a call, or says that it is
stopping, gets no more calls until all its models answer. docs/adr/0044-several-tritons.md gives the reasons.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from lipsync import tensors
from lipsync.tensors import Model

from ..errors import AvatarError, Unavailable
from ..load import wait_for
from ..streams import cancel_and_wait, start_task
from .addresses import Endpoint, Lookup, resolve
from .protocol import ServedModel, ServerState
from .triton_rpc import may_be_repeated, means_down
from .triton_server import TritonServer

logger = logging.getLogger("avatar")
T = TypeVar("T")

RESOLVE_SECONDS = 5.0  # between two looks at the addresses of a name; at most, after a server was lost
PROBE_SECONDS = 1.0  # between two questions to a healthy server whether it is ready
RECHECK_SECONDS = 0.5  # between two checks of a server that is down
# A server that answers nothing for this long has vanished or hangs, if another one answers; else the machine of the
# caller may be overloaded, and calls wait as they do with one server.
SILENT_SECONDS = 20.0
PATIENCE_SECONDS = 5.0  # for which a call waits for a healthy server where there is none
MAX_LOST = 4  # servers that one call may lose; an input that kills servers does not kill all of them
_LIMITED = (tensors.S3FD, tensors.WAV2LIP, tensors.SEGMENTATION)  # their configurations; not every server has the GAN


class Member:
    """A server of the pool.

    Attributes:
        healthy: whether it gets calls.
        recoveries: how often it has become healthy.
        picked: number of the last inference that it got.
        asked: the same for other questions, which are spread on their own: a job asks one for each inference.
        checked: whether the first check of it has ended.
        fault: why it gets no calls.
    """

    def __init__(self, server: TritonServer, *, healthy: bool) -> None:
        self.server, self.healthy, self.recoveries = server, healthy, 0
        self.picked = self.asked = 0
        self.checked, self.fault = healthy, ""
        self.changed = asyncio.Event()  # wakes the task that watches it
        self.watcher: asyncio.Task[None] | None = None

    def rows_of(self, model: Model | None) -> float:
        """Return how many rows one call may have, as far as it is known; 0 where it does not serve the model."""
        return self.server.limits.get(model.name, math.inf) if model else math.inf


class ServerPool:
    """The servers behind some endpoints. For one event loop; `start` is called before everything else."""

    def __init__(self, endpoints: Sequence[Endpoint], connect: Callable[[str], TritonServer], lookup: Lookup) -> None:
        """Make a pool without servers.

        Args:
            endpoints: what the setting names.
            connect: makes the server of an address.
            lookup: resolves names.
        """
        self._endpoints, self._connect, self._lookup = endpoints, connect, lookup
        # One server for good is called as it is: no probes, no second attempts. Its errors are those of its calls.
        self._alone = len(endpoints) == 1 and endpoints[0].is_fixed
        self._members: dict[str, Member] = {}
        self._generators: set[Model] = set()  # those that jobs have used
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolving: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()  # wakes the task that resolves
        self._news = asyncio.Event()  # set, and replaced, whenever more is known of a server
        self._picks = 0
        self._closed = False

    @property
    def members(self) -> list[Member]:
        """All servers."""
        return list(self._members.values())

    @property
    def healthy(self) -> list[Member]:
        """The servers that get calls."""
        return [member for member in self._members.values() if member.healthy]

    def states(self) -> list[ServerState]:
        """Return the state of each server. One that is alone gets all calls, and is unhealthy while they fail."""
        return [each.server.state(None if self._alone else each.healthy) for each in self.members]

    def uses(self, generator: Model) -> None:
        """Note that jobs use this generator: servers have to answer it, too."""
        self._generators.add(generator)

    async def check_ready(self) -> None:
        """Return if every model of at least one server answers. Raises Unavailable."""
        await self.call(lambda server, _: server.check_ready(self._generators), PATIENCE_SECONDS, wait=False)

    async def served(self, models: Sequence[Model]) -> list[Mapping[str, ServedModel]]:
        """Return the configurations of models on each healthy server that has them; of one at least, or raise."""
        await self._start()

        async def ask(member: Member) -> list[Mapping[str, ServedModel]]:
            try:
                served = await member.server.served(models)
            except Unavailable as reason:
                if means_down(reason) and may_be_repeated(reason):
                    self._down(member, reason)
                return []
            self._note(member, served)
            return [served]

        answers = [] if self._alone else await asyncio.gather(*map(ask, self.healthy))
        found = [served for each in answers for served in each]
        return found or [await self.call(lambda server, _: server.served(models), PATIENCE_SECONDS)]

    async def call(
        self,
        make: Callable[[TritonServer, float], Awaitable[T]],
        seconds: float,
        *,
        model: Model | None = None,
        rows: int = 0,
        wait: bool = True,
    ) -> T:
        """Make a call on one server and, if that server is lost or stops, on another one.

        Args:
            make: makes the call at a server, with a deadline in seconds.
            seconds: deadline of all attempts together.
            model, rows: what is called; a server that takes so many rows in one call is preferred.
            wait: whether to wait for a healthy server for some seconds.
        """
        await self._start()
        end, tried, lost = time.monotonic() + seconds, dict[Member, int](), 0
        error: Unavailable | None = None
        while lost < MAX_LOST:
            member = await self._pick(model, rows, tried, min(end, time.monotonic() + PATIENCE_SECONDS * wait))
            if member is None:
                break
            tried[member] = member.recoveries
            try:
                result = await make(member.server, max(0.001, end - time.monotonic()))
            except Unavailable as reason:
                error = reason
                if self._alone and means_down(reason):
                    member.server.log_change("does not serve", reason)
                if self._alone or self._closed or not may_be_repeated(reason):
                    raise
                if means_down(reason):
                    self._down(member, reason)
                    lost += 1
                member.changed.set()  # a server that stops also answers that it does not have a model: look at it now
            else:
                if self._alone:
                    member.server.log_change("answers")
                return result
        raise error or self._none_ready()

    async def close(self) -> None:
        """Close all connections: calls in flight raise Unavailable. A later call connects again."""
        self._closed = True
        self._tell()
        members, self._members = self.members, {}
        found = [*self._tasks, self._resolving, *(each.watcher for each in members)]
        tasks, self._resolving = [task for task in found if task], None
        await cancel_and_wait(*tasks)
        await asyncio.gather(*(each.server.close() for each in members))

    async def _start(self) -> None:
        """Find the servers, unless that was done."""
        if self._members and not self._closed:
            return
        self._closed = False
        if self._alone:
            (endpoint,) = self._endpoints
            self._members = {str(endpoint): Member(self._connect(str(endpoint)), healthy=True)}
            return
        await self._resolve()
        if self._resolving is None and not all(each.is_fixed for each in self._endpoints):
            self._resolving = asyncio.create_task(self._resolve_again())

    async def _resolve(self) -> None:
        """Add the servers that are new, and leave those that are gone. Raises Unavailable."""
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await resolve(self._endpoints, self._lookup)
        except (OSError, UnicodeError) as error:  # a TimeoutError, too
            names = ", ".join(str(each) for each in self._endpoints)
            raise Unavailable(f"{names}: the name of Triton cannot be resolved") from error
        if self._closed:
            return
        for address in addresses:
            if address not in self._members:
                self._members[address] = member = Member(self._connect(address), healthy=False)
                member.watcher = asyncio.create_task(self._watch(member))
        for address in self._members.keys() - set(addresses):
            logger.info("Triton at %s is no longer an address of the service", address)
            start_task(self._retire(self._members.pop(address)), self._tasks)

    async def _resolve_again(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await wait_for(self._lost, RESOLVE_SECONDS)
            self._lost.clear()
            try:
                await self._resolve()
            except Unavailable as error:  # the servers that are known stay
                logger.warning("%s", error)

    async def _retire(self, member: Member) -> None:
        """Let the calls in flight end, then close."""
        member.healthy = False
        if member.watcher:
            member.watcher.cancel()
        try:
            while member.server.load:  # noqa: ASYNC110 - a few seconds more or less do not matter
                await asyncio.sleep(RECHECK_SECONDS)
        finally:
            await member.server.close()

    async def _pick(self, model: Model | None, rows: int, tried: dict[Member, int], end: float) -> Member | None:
        """Return the server with the fewest calls in flight, and of these the one that was called the longest ago.

        None where there is none at `end` that has not failed at this call.
        """
        while True:
            fresh = [each for each in self.healthy if tried.get(each, -1) < each.recoveries and each.rows_of(model)]
            if fresh:
                self._picks += 1
                if model is None:
                    chosen = min(fresh, key=lambda each: each.asked)
                    chosen.asked = self._picks
                else:
                    fitting = [each for each in fresh if each.rows_of(model) >= rows]
                    chosen = min(fitting or fresh, key=lambda each: (each.server.load, each.picked))
                    chosen.picked = self._picks
                return chosen
            left = end - time.monotonic()
            if not all(each.checked for each in self.members):  # soon it is known what it can do
                left = max(left, PROBE_SECONDS)
            if left <= 0 or self._closed or all(each.healthy for each in self.members):
                return None
            await wait_for(self._news, left)

    def _none_ready(self) -> Unavailable:
        faults = [each.fault for each in self.members if each.fault]
        return Unavailable(f"none of {len(self._members)} Tritons can serve this call: {(*faults, 'not ready')[0]}")

    def _tell(self) -> None:
        """Wake the calls that wait for a server."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _down(self, member: Member, reason: Unavailable) -> None:
        member.server.log_change("gets no calls until it answers", reason)
        member.healthy, member.fault = False, str(reason)
        member.server.forget()
        member.changed.set()
        self._lost.set()

    async def _watch(self, member: Member) -> None:
        """Keep `healthy` true to the server; after a long silence end its calls, so that they go elsewhere."""
        while True:
            member.changed.clear()
            try:
                await (member.server.check_up() if member.healthy else self._recover(member))
            except Unavailable as reason:
                silent = time.monotonic() - member.server.answered_at >= SILENT_SECONDS and self._has_others(member)
                if silent or may_be_repeated(reason) or not member.healthy:
                    self._down(member, reason)
                if silent and member.server.in_flight:
                    await member.server.disconnect()
            except Exception:
                logger.exception("the check of Triton at %s failed", member.server.address)
            if not member.checked:
                member.checked = True
                self._tell()
            if member.healthy:
                await wait_for(member.changed, PROBE_SECONDS)
            else:
                await asyncio.sleep(RECHECK_SECONDS)

    def _has_others(self, member: Member) -> bool:
        return any(other is not member for other in self.healthy)

    async def _recover(self, member: Member) -> None:
        """Make a server healthy if all its models answer. Raises AvatarError."""
        await member.server.check_ready(())
        await self._read_limits(member)
        if not member.changed.is_set():  # no call has failed meanwhile
            member.server.log_change("is ready")
            member.healthy, member.recoveries, member.fault = True, member.recoveries + 1, ""
            self._tell()

    async def _read_limits(self, member: Member) -> None:
        """Ask a server how many rows a call may have, and whether it has the second generator."""
        self._note(member, await member.server.served(_LIMITED))
        try:
            self._note(member, await member.server.served((tensors.WAV2LIP_GAN,)))
        except AvatarError:
            member.server.limits[tensors.WAV2LIP_GAN.name] = 0

    def _note(self, member: Member, served: Mapping[str, ServedModel]) -> None:
        member.server.limits |= {name: each.max_batch for name, each in served.items() if each.max_batch}
        if limit := member.server.limits.get(tensors.S3FD.name):
            member.server.limits[tensors.DETECT_FACES.name] = limit
