"""Which servers the setting names, and how the addresses of a name are followed, on real gRPC servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from avatar.errors import Unavailable
from avatar.inference import server_pool
from avatar.inference.addresses import Endpoint, parse_addresses, resolve
from tests.support.fake_triton import FakeTriton, serve
from tests.support.fake_tritons import IMAGE, calling, healthy, images_of, until

pytestmark = pytest.mark.usefixtures("often")


class Names:
    """A resolver in which the addresses of a name can be changed."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


@asynccontextmanager
async def one_port(*hosts: str) -> AsyncIterator[tuple[int, dict[str, FakeTriton]]]:
    """Servers on several addresses of this machine with the same port."""
    async with AsyncExitStack() as stack:
        while True:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            fakes = {host: FakeTriton() for host in hosts}
            try:
                for host, fake in fakes.items():
                    await stack.enter_async_context(serve(fake, f"{host}:{port}"))
            except RuntimeError:  # another process has the port of one address
                await stack.aclose()
                continue
            yield port, fakes
            return


async def test_all_addresses_of_a_name_are_used_and_changes_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_pool, "RESOLVE_SECONDS", 0.2)
    monkeypatch.setattr(server_pool, "PROBE_SECONDS", 0.1)
    names = Names("127.0.0.1", "127.0.0.2")
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    async with one_port(*hosts) as (port, fakes), calling(f"dns:///triton:{port}", lookup=names) as models:
        await models.check_ready()
        await until(lambda: healthy(models) == {f"127.0.0.1:{port}", f"127.0.0.2:{port}"})
        for _ in range(10):
            await models.segment(IMAGE)
        assert [len(images_of(fake)) for fake in fakes.values()] == [5, 5, 0]
        names.addresses = ("127.0.0.3", "127.0.0.2")
        await until(lambda: healthy(models) == {f"127.0.0.2:{port}", f"127.0.0.3:{port}"})
        fakes["127.0.0.1"].requests.clear()
        for _ in range(10):
            await models.segment(IMAGE)
        assert images_of(fakes["127.0.0.1"]) == []
        names.addresses = ()  # the name server is away: the known servers stay
        await asyncio.sleep(0.5)
        await models.segment(IMAGE)
        assert len(healthy(models)) == 2


async def test_a_server_that_leaves_ends_its_calls_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_pool, "RESOLVE_SECONDS", 0.2)
    monkeypatch.setattr(server_pool, "PROBE_SECONDS", 0.1)
    names = Names("127.0.0.1")
    hosts = ("127.0.0.1", "127.0.0.2")
    async with one_port(*hosts) as (port, fakes), calling(f"triton:{port}", lookup=names) as models:
        await models.check_ready()
        fakes["127.0.0.1"].slow = 1.0  # longer than the next look at the name
        call = asyncio.create_task(models.segment(IMAGE))
        await until(lambda: bool(images_of(fakes["127.0.0.1"])))
        names.addresses = ("127.0.0.2",)
        await until(lambda: [state.address for state in models.servers()] == [f"127.0.0.2:{port}"])
        await call
        assert images_of(fakes["127.0.0.2"]) == []


async def test_a_name_that_does_not_exist_is_unavailable() -> None:
    async with calling("nowhere.invalid:8001", lookup=Names()) as models:
        with pytest.raises(Unavailable, match=r"nowhere\.invalid:8001: the name of Triton cannot be resolved"):
            await models.check_ready()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8001", [Endpoint("127.0.0.1", 8001)]),
        ("a:1, b.c:2,a:1", [Endpoint("a", 1), Endpoint("b.c", 2)]),
        ("dns:///triton:8001", [Endpoint("triton", 8001)]),
        ("[::1]:8001", [Endpoint("[::1]", 8001)]),
    ],
)
def test_addresses_are_read(text: str, expected: list[Endpoint]) -> None:
    assert list(parse_addresses(text)) == expected


@pytest.mark.parametrize("text", ["", "triton", "http://triton:8001", "a:1,", "a:1 b:2", "a:70000", "dns:triton:1"])
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_addresses(text)


async def test_a_server_with_addresses_of_both_families_counts_once() -> None:
    endpoints = parse_addresses("triton:8001,localhost:9001")
    assert await resolve(endpoints, Names("::1", "10.0.0.2", "10.0.0.1")) == (
        "10.0.0.1:8001",
        "10.0.0.2:8001",
        "localhost:9001",
    )
    assert await resolve(parse_addresses("triton:8001"), Names("fd00::1")) == ("[fd00::1]:8001",)
