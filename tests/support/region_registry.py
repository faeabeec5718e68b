"""A fake of the server's registry of shared memory. Like Triton, it checks that a registered file exists."""

from __future__ import annotations

import asyncio

from avatar_client.region_file import FOLDER, boot_seconds


class FakeRegistry:
    """Implements the client's `RegionRegistry`.

    Attributes:
        response: what `register` returns; None means that the response is lost, though the region is registered.
        in_use: names that it refuses to unregister.
        registrations: number of registrations.
        all_names: every name that was registered.
    """

    def __init__(self) -> None:
        self.regions: set[str] = set()
        self.in_use: set[str] = set()
        self.response: bool | None = True
        self.registrations = 0
        self.all_names: list[str] = []

    def register(self, name: str, size: int) -> bool | None:
        self.registrations += 1
        assert (FOLDER / name).stat().st_size == size
        if self.response is not False:
            self.regions.add(name)
            self.all_names.append(name)
        return self.response

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
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = boot_seconds()

    def __call__(self) -> float:
        return self.now
