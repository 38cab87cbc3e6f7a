"""Whom no feed may list: one's own names and networks, and the infrastructure half the world stands on.

A name on the list covers what is below it. Of major infrastructure only the host itself is kept out: a page on a
hosting service may be malicious, the service's name may not be blocked. Of one's own nothing is ever listed.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from socket import inet_aton
from urllib.parse import urlsplit

from shared.feeds.indicators import Indicator

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Allowed:
    """`own` are names of ours, `domains` major infrastructure's, `networks` addresses of either."""

    own: tuple[str, ...]
    domains: tuple[str, ...]
    networks: tuple[str, ...]

    def __post_init__(self) -> None:
        for network in self.networks:
            ip_network(network)  # a ValueError names it

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(name.lower() for item in self.own for name in item.split(",") if name)

    @cached_property
    def _hosts(self) -> frozenset[str]:
        """Names of ours, and of major infrastructure."""
        return self._own.union(map(str.lower, self.domains))

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(map(ip_network, self.networks))

    @cached_property
    def _ranges(self) -> tuple[list[int], list[int]]:
        """The first and the last addresses of the IPv4 networks, as numbers in order."""
        ranges = sorted((int(n[0]), int(n[-1])) for n in collapse_addresses(self._v4()))
        return [first for first, _ in ranges], [last for _, last in ranges]

    def _v4(self) -> list[IPv4Network]:
        return [n for n in self._networks if isinstance(n, IPv4Network)]

    def _holds(self, address: str) -> bool:
        """Whether an IPv4 address is in one of the networks; half of all feeds are addresses, so without objects."""
        firsts, lasts = self._ranges
        number = int.from_bytes(inet_aton(address), "big")
        place = bisect_right(firsts, number) - 1
        return place >= 0 and number <= lasts[place]

    def covers(self, indicator: Indicator) -> bool:
        """Whether `indicator` must not be listed."""
        kind, value = indicator
        if kind == "domain":
            return _under(value, self._hosts)
        if kind == "url":
            return self._covers_url(value)
        if not self._networks:
            return False
        if kind == "ipv4":
            return self._holds(value)
        if kind == "ipv6":
            return self._within(ip_network(value))
        if kind == "ip_port":
            address = value.rpartition(":")[0]
            return self._within(ip_network(address.strip("[]"))) if address[0] == "[" else self._holds(address)
        return kind == "cidr" and self._within(ip_network(value))

    def _covers_url(self, url: str) -> bool:
        host = url.split("/", 3)[2]
        bare = url.endswith("/") and url.count("/") == 3
        if _under(host.partition(":")[0], self._hosts if bare else self._own):
            return True
        if self._networks and (host[-1:].isdigit() or host.startswith("[")):
            try:
                address = ip_address(urlsplit(url).hostname or "")
            except ValueError:
                return False
            return self._within(ip_network(address))
        return False

    def _within(self, network: Network) -> bool:
        return any(network.version == n.version and network.overlaps(n) for n in self._networks)


def _under(name: str, names: frozenset[str]) -> bool:
    """Whether `name` or what it is below stands in `names`."""
    while name:
        if name in names:
            return True
        _, _, name = name.partition(".")
    return False
