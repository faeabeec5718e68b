"""A fake of the server's registry of shared memory. Like Triton, it checks that a registered file exists."""

from __future__ import annotations

import asyncio

from avatar_client.region_file import FOLDER, boot_seconds
from avatar_client.region_pool import NewRegion, Registration


class FakeRegistry:
    """Implements the client's `RegionRegistry`.

    Attributes:
        response: what `register` returns; UNANSWERED: the response is lost, though the region is registered.
        in_use: names that it refuses to unregister.
        registrations: number of registrations.
        all_names: every name that was registered.
        files: the file of every registration.
    """

    def __init__(self) -> None:
        self.regions: set[str] = set()
        self.in_use: set[str] = set()
        self.response = Registration.MAPPED
        self.registrations = 0
        self.all_names: list[str] = []
        self.files: list[str] = []

    def register(self, new: NewRegion) -> Registration:
        self.registrations += 1
        self.files.append(new.file)
        status = (FOLDER / new.file).stat()
        assert (status.st_size, status.st_mode & 0o777) == (new.size, 0o600)
        if self.response in {Registration.MAPPED, Registration.UNANSWERED}:
            self.regions.add(new.name)
            self.all_names.append(new.name)
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

    async def register(self, new: NewRegion) -> Registration:
        self.reached.set()
        await self.gate.wait()
        return self._registry.register(new)

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
