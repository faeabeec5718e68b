"""Decide which hosts, ports and addresses a URL of a caller may lead to.

A caller must not reach through this service what it could not reach by itself: the machine, its network, and the
metadata of the cloud, which gives credentials. The check is made on the address that is then connected to, so a DNS
server that changes its answers gains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .errors import RefusedUrl

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS = frozenset({80, 443})

# The registries of special addresses of IANA, with multicast, and Azure's platform server, whose address is public.
_CLOSED_4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
_GLOBAL_6 = IPv6Network("2000::/3")
_CLOSED_6 = [IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_ENTRY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\](?:/\d+)?|[^\s:\[\]]+)(?::(?P<port>\d+|\*))?")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


@dataclass(frozen=True)
class AllowedHost:
    """One entry of the setting: a host or a network that may be reached though it is not public.

    Attributes:
        name: a host name, or `*.` and a domain for every host in it; empty for a network.
        network: the network; None for a name.
        ports: the ports; None for all.
    """

    name: str
    network: Network | None
    ports: frozenset[int] | None

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """Read `name`, `*.domain`, `10.0.0.0/8`, `10.1.2.3:9000`, `[fd00::]/8:*` or the like. Raises ValueError."""
        network = _network(text)
        match = None if network else _ENTRY.fullmatch(text)
        if network is None and match is None:
            raise ValueError(f"{text!r} is neither a host name nor a network, with a port or without")
        port = match["port"] if match else None
        ports = DEFAULT_PORTS if port is None else None if port == "*" else frozenset({int(port)})
        if ports is not None and not all(0 < number < 65536 for number in ports):
            raise ValueError(f"{text!r}: a port is a number from 1 to 65535, or *")
        if match:
            network = _network(match["host"].replace("[", "").replace("]", ""))
        name = "" if network or not match else normal_host(match["host"])
        if network is None and not _NAME.fullmatch(name):
            raise ValueError(f"{text!r} is neither a host name nor a network, with a port or without")
        return cls(name, network, ports)

    def covers(self, host: str, address: Address | None) -> bool:
        """Return whether this entry names the host or the address."""
        if self.network is not None:
            return address is not None and address in self.network
        return host == self.name or (self.name.startswith("*.") and host.endswith(self.name[1:]))

    def has_port(self, port: int) -> bool:
        """Return whether this entry allows the port."""
        return self.ports is None or port in self.ports


@dataclass(frozen=True)
class UrlRules:
    """What the URLs of callers may lead to.

    Attributes:
        allowed_hosts: hosts and networks that are not public, or have other ports than 80 and 443.
        allow_http: whether `http://` is allowed, and not `https://` only.
        seconds: time for one download or upload, with its redirects and retries.
        s3_buckets: buckets that `s3://bucket/key` may name; they are read with the credentials of this service.
    """

    allowed_hosts: tuple[AllowedHost, ...] = ()
    allow_http: bool = False
    seconds: float = 60.0
    s3_buckets: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(
        cls,
        allowed_hosts: Iterable[str] = (),
        *,
        allow_http: bool = False,
        seconds: float = 60.0,
        s3_buckets: Iterable[str] = (),
    ) -> UrlRules:
        """Make the rules from the texts of the settings. Raises ValueError."""
        hosts = tuple(AllowedHost.parse(text.strip()) for text in allowed_hosts)
        return cls(hosts, allow_http, seconds, frozenset(s3_buckets))

    def check_addresses(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        """Raise RefusedUrl unless every address of a host may be connected to, on this port."""
        host = normal_host(host)
        for address in addresses:
            public = is_public(address)
            entries = [entry for entry in self.allowed_hosts if entry.covers(host, address)]
            if (public and port in DEFAULT_PORTS) or any(entry.has_port(port) for entry in entries):
                continue
            if not public and not entries:
                raise RefusedUrl("the URL leads to an address that is not public")
            raise RefusedUrl(f"the URL has the port {port}, which is not allowed")


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, also where it is an IPv4 address within an IPv6 one."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    if address in _MAPPED or address in _NAT64:
        return is_public(IPv4Address(address.packed[12:]))
    if address in _6TO4:
        return is_public(IPv4Address(address.packed[2:6]))
    return address in _GLOBAL_6 and not any(address in network for network in _CLOSED_6)


def plain(address: str) -> Address:
    """Return an address that a resolver answers; one that is mapped into IPv6 becomes the IPv4 address."""
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def normal_host(host: str) -> str:
    """Return a host name as it is compared: in small letters, without the dot at its end."""
    return host.lower().rstrip(".")


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
