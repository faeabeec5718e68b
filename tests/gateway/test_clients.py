"""Who a client is: its address, or what trusted proxies say of it; and how many places one client holds."""

from ipaddress import ip_network

import pytest
from starlette.requests import HTTPConnection

from gateway.clients import ClientShares, client_of
from gateway.errors import TooManyJobs
from gateway.settings import Settings

PROXIES = tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48"))


def connection(peer: str | None, *forwarded: str) -> HTTPConnection:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return HTTPConnection({"type": "http", "client": peer and (peer, 1234), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.7", (), "192.0.2.7"),
        ("192.0.2.7", ("198.51.100.1",), "192.0.2.7"),  # not a trusted proxy: anybody can send the header
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),  # the client wrote the first one
        ("10.0.0.1", ("203.0.113.9", "198.51.100.1"), "198.51.100.1"),
        ("10.0.0.1", ("198.51.100.1, 10.9.9.9",), "198.51.100.1"),  # two proxies in a row
        ("10.0.0.1", ("10.9.9.9",), "10.9.9.9"),
        ("10.0.0.1", ("198.51.100.1, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1:5555",), "198.51.100.1"),
        ("10.0.0.1", ("[2001:db8:2::1]:5555",), "2001:db8:2::/64"),
        ("::ffff:10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("2001:db8:1::5", ("2001:db8:2:0:1::1",), "2001:db8:2::/64"),
        ("fe80::1%eth0", (), "fe80::/64"),
        (None, (), "local"),
    ],
)
def test_a_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str | None, forwarded: tuple[str, ...], client: str
) -> None:
    assert client_of(connection(peer, *forwarded), PROXIES) == client


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert client_of(connection("2001:db8:5::1"), ()) == client_of(connection("2001:db8:5::ffff:2"), ())
    assert client_of(connection("2001:db8:5::1"), ()) != client_of(connection("2001:db8:5:1::1"), ())


def test_a_client_gets_its_share_and_no_more() -> None:
    shares = ClientShares(1)
    reason = r"^limit of 1 running and queued requests per client address reached; "
    with shares.hold("a"), shares.hold("b"), pytest.raises(TooManyJobs, match=reason):
        shares.hold("a").__enter__()
    with shares.hold("a"):
        pass


def test_zero_is_no_limit() -> None:
    shares = ClientShares(0)
    with shares.hold("a"), shares.hold("a"), shares.hold("a"):
        pass


@pytest.mark.parametrize(
    ("jobs", "queued", "share"), [(2, 32, 17), (1, 0, 1), (1, 1, 1), (8, 0, 7), (8, 4, 8), (4, 5, 5)]
)
def test_the_default_share_is_half_of_the_places_and_never_all(jobs: int, queued: int, share: int) -> None:
    assert Settings(max_jobs=jobs, max_queued=queued).jobs_per_client == share


def test_the_share_is_a_setting() -> None:
    assert Settings(max_jobs_per_client=3).jobs_per_client == 3
    assert Settings(max_jobs_per_client=0).jobs_per_client == 0
