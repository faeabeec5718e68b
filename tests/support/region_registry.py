"""A server's registry of shared memory, without a server: what it registers it looks for, as Triton does."""

from __future__ import annotations

import asyncio

from avatar_client.region_file import FOLDER, boot_seconds


class FakeRegistry:
    """Implements the client's `RegionRegistry`.

    Attributes:
        answer: what `register` returns; None means no answer, though the region is registered.
        in_use: names that it does not release.
        asked: number of registrations.
        ever: all names that were registered.
    """

    def __init__(self) -> None:
        self.regions: set[str] = set()
        self.in_use: set[str] = set()
        self.answer: bool | None = True
        self.asked = 0
        self.ever: list[str] = []

    def register(self, name: str, size: int) -> bool | None:
        self.asked += 1
        assert (FOLDER / name).stat().st_size == size
        if self.answer is not False:
            self.regions.add(name)
            self.ever.append(name)
        return self.answer

    def unregister(self, name: str) -> bool:
        if name not in self.in_use:
            self.regions.discard(name)
        return name not in self.in_use

    def registered(self) -> list[str]:
        return sorted(self.regions)


class AsyncFakeRegistry:
    """Implements the service's `RegionRegistry` over a `FakeRegistry`; a registration waits for `gate`."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry
        self.gate, self.reached = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.closed = False

    async def register(self, name: str, size: int) -> bool | None:
        self.reached.set()
        await self.gate.wait()
        return self._registry.register(name, size)

    async def unregister(self, name: str) -> bool:
        return self._registry.unregister(name)

    async def registered(self) -> list[str]:
        return self._registry.registered()

    async def close(self) -> None:
        self.closed = True


class FakeClock:
    """The machine's clock, set by hand."""

    def __init__(self) -> None:
        self.now = boot_seconds()

    def __call__(self) -> float:
        return self.now
