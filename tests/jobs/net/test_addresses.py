"""Which hosts, ports and addresses a URL may lead to, and which URLs are refused without a look at the network."""

import contextlib
import random
import socket
from ipaddress import ip_address

import pytest

from jobs.net.addresses import AllowedHost, UrlRules, is_public, plain
from jobs.net.client import UrlClient
from jobs.net.errors import RefusedUrl, RequestFailed
from jobs.net.urls import parse_url

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"]
PUBLIC_6 = ["2606:4700:4700::1111", "2a00:1450:4001:82a::200e", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    "0.0.0.0",  # noqa: S104 - it is refused
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",  # metadata of Alibaba's cloud
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's platform
    "169.254.169.254",  # metadata of most clouds
    "169.254.170.2",  # credentials of a container in AWS
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # metadata of Oracle's cloud
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]
PRIVATE_6 = [
    "::",
    "::1",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
    "64:ff9b:1::808:808",  # NAT64 of a local network
    "100::1",
    "2001::1",  # Teredo
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of AWS
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC + PUBLIC_6)
def test_public_addresses_are_allowed(address: str) -> None:
    UrlRules.of().check_addresses("host", 443, [plain(address)])


@pytest.mark.parametrize("address", PRIVATE + PRIVATE_6)
def test_other_addresses_are_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(RefusedUrl, match="not public"):
        UrlRules.of().check_addresses("host", 443, [plain(address)])


def test_a_host_with_one_private_address_is_refused() -> None:
    with pytest.raises(RefusedUrl):
        UrlRules.of().check_addresses("host", 443, [plain("8.8.8.8"), plain("10.0.0.1")])


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "allowed"),
    [
        ("files.internal", "files.internal", "10.0.0.1", 443, True),
        ("files.internal", "Files.Internal.", "10.0.0.1", 80, True),
        ("files.internal", "files.internal", "10.0.0.1", 9000, False),
        ("files.internal", "other.internal", "10.0.0.1", 443, False),
        ("files.internal", "evil-files.internal", "10.0.0.1", 443, False),
        ("files.internal:9000", "files.internal", "10.0.0.1", 9000, True),
        ("files.internal:9000", "files.internal", "10.0.0.1", 443, False),
        ("files.internal:*", "files.internal", "10.0.0.1", 1, True),
        ("*.internal", "a.b.internal", "10.0.0.1", 443, True),
        ("*.internal", "internal", "10.0.0.1", 443, False),
        ("*.internal", "ainternal", "10.0.0.1", 443, False),
        ("10.0.0.0/8", "any", "10.9.9.9", 443, True),
        ("10.0.0.0/8", "any", "11.9.9.9", 443, True),
        ("10.0.0.0/8", "any", "192.168.0.1", 443, False),
        ("10.0.0.0/8:9000", "any", "10.9.9.9", 9000, True),
        ("10.1.2.3:9000", "any", "10.1.2.3", 9000, True),
        ("10.1.2.3", "any", "::ffff:10.1.2.3", 443, True),
        ("fd00::/8", "any", "fd00::1", 443, True),
        ("[fd00::]/8:9000", "any", "fd00::1", 9000, True),
        ("[fd00::1]:9000", "any", "fd00::2", 9000, False),
        ("cdn.example:8443", "cdn.example", "8.8.8.8", 8443, True),
        ("cdn.example:8443", "cdn.example", "8.8.8.8", 443, True),
        ("cdn.example:8443", "cdn.example", "8.8.8.8", 8444, False),
        ("cdn.example:8443", "other.example", "8.8.8.8", 8443, False),
    ],
)
def test_an_allowed_host_opens_what_it_names(entry: str, host: str, address: str, port: int, allowed: bool) -> None:
    rules = UrlRules.of([entry])
    if allowed:
        rules.check_addresses(host, port, [plain(address)])
    else:
        with pytest.raises(RefusedUrl):
            rules.check_addresses(host, port, [plain(address)])


@pytest.mark.parametrize(
    "entry", ["", "a b", "host:", "host:port", "host:0", "host:70000", "http://host", "*", "[::1", "a/8"]
)
def test_an_allowed_host_that_is_none_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match=r"neither a host name nor a network|a port is"):
        AllowedHost.parse(entry)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "must begin with https://"),
        ("ftp://example.com/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("//example.com/x", "must begin with https://"),
        ("example.com/x", "must begin with https://"),
        ("", "must begin with https://"),
        ("https://", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("s3://bucket/key", "must begin with https://"),
        ("https://user@example.com/", "user name or a password"),
        ("https://user:secret@example.com/", "user name or a password"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "port 99999"),
        ("https://example.com/\n", "cannot be read"),
        ("https://exa mple.com/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://host/\ud800", "cannot be read"),
        ("https://a%00b/", "cannot be read"),
        ("https://example.com/" + "a" * 9000, "more than 8192 characters"),
    ],
)
def test_an_url_that_cannot_be_right_is_refused_before_any_request(url: str, reason: str) -> None:
    with pytest.raises(RefusedUrl, match=reason):
        parse_url(url, UrlRules.of())


def test_a_damaged_url_is_read_or_refused() -> None:
    random_ = random.Random(16)
    whole = [
        "https://example.com:443/a?b=c#d",
        "http://[fe80::1%25eth0]:80/x",
        "https://u:p@xn--ls8h.la/ä",
        "//ü。example/",
    ]
    for _ in range(5000):
        text = list(random_.choice(whole))
        for _ in range(random_.randint(1, 4)):
            position = random_.randrange(len(text))
            text[position : position + random_.randint(0, 1)] = random_.choice(
                "/:@[]%?#.\\ \t\n\0ü\ud800\u202e0129az-。"
            )
        with contextlib.suppress(RefusedUrl):
            parsed = parse_url("".join(text), UrlRules.of(allow_http=True))
            assert parsed.raw_host.decode()
            assert parse_url(str(parsed), UrlRules.of(allow_http=True)).raw_host == parsed.raw_host
        with contextlib.suppress(ValueError):
            AllowedHost.parse("".join(text))


def test_http_is_allowed_by_a_setting() -> None:
    assert parse_url("http://example.com/x", UrlRules.of(allow_http=True)).scheme == "http"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "[::1]",
        "[::ffff:7f00:1]",
    ],
)
async def test_no_spelling_of_this_machine_gets_through(host: str) -> None:
    async with UrlClient(UrlRules.of()) as client:
        with pytest.raises((RefusedUrl, RequestFailed)) as refused:
            await client.check(f"https://{host}/")
    if host in ("127.0.0.1", "localhost", "[::1]"):
        assert "not public" in str(refused.value)


@pytest.mark.parametrize(
    "host", ["xn--ls8h.la", "xn--.la", "a..b", "-.la", "a" * 300 + ".la", "1.2.3.4.5", "[::1%251]"]
)
async def test_a_strange_host_is_refused_or_unknown(host: str) -> None:
    async with UrlClient(UrlRules.of()) as client:
        with pytest.raises((RefusedUrl, RequestFailed)):
            await client.check(f"https://{host}/")


async def test_another_port_is_refused_for_a_public_address_too() -> None:
    async with UrlClient(UrlRules.of()) as client:
        await client.check("https://8.8.8.8/")
        await client.check("https://8.8.8.8:80/")
        with pytest.raises(RefusedUrl, match="port 22"):
            await client.check("https://8.8.8.8:22/")


async def test_a_host_that_is_unknown_is_no_refusal() -> None:
    async def unknown(host: str, port: int) -> list:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with UrlClient(UrlRules.of(), resolve=unknown) as client:
        with pytest.raises(RequestFailed, match="unknown; check its name") as failure:
            await client.check("https://nowhere.example/")
    assert not failure.value.transient


async def test_only_the_buckets_of_the_setting_may_be_named() -> None:
    async with UrlClient(UrlRules.of(s3_buckets=["media"])) as client:
        await client.check("s3://media/a/b.mp4", s3=True)
        for url in ("s3://other/a", "s3://media", "s3://media/", "s3:///a"):
            with pytest.raises(RefusedUrl):
                await client.check(url, s3=True)
        with pytest.raises(RefusedUrl, match="must begin with https"):
            await client.check("s3://media/a/b.mp4")
