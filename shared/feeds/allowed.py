"""Whom no feed may list: one's own names and networks, and the infrastructure half the world stands on.

A name on the list covers what is below it. Of major infrastructure only the host itself is kept out: a page on a
hosting service may be malicious, the service's name may not be blocked. Of one's own nothing is ever listed.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from socket import inet_aton
from urllib.parse import urlsplit

from shared.feeds.indicators import Indicator

Network = IPv4Network | IPv6Network


class Names:
    """Names, each of which covers itself and what is below it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(map(str.lower, names))
        # Nearly every name that comes ends like none of them, and is told by that at once.
        self._tail = slice(-min(map(len, self._names), default=1), None)
        self._tails = frozenset(name[self._tail] for name in self._names)

    def cover(self, name: str) -> bool:
        """Whether `name` or what it is below is one of them."""
        if name[self._tail] not in self._tails:
            return False
        while name:
            if name in self._names:
                return True
            _, _, name = name.partition(".")
        return False


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
    def _own(self) -> Names:
        return Names(self._ours())

    @cached_property
    def _hosts(self) -> Names:
        """Names of ours, and of major infrastructure."""
        return Names((*self._ours(), *self.domains))

    def _ours(self) -> list[str]:
        return [name for item in self.own for name in item.split(",") if name]

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        return tuple(map(ip_network, self.networks))

    @cached_property
    def _octets(self) -> frozenset[str]:
        """What the addresses of the IPv4 networks begin with."""
        return frozenset(str(o) for n in self._v4() for o in range(n[0].packed[0], n[-1].packed[0] + 1))

    @cached_property
    def _ranges(self) -> tuple[list[int], list[int]]:
        """The first and the last addresses of the IPv4 networks, as numbers in order."""
        ranges = sorted((int(n[0]), int(n[-1])) for n in collapse_addresses(self._v4()))
        return [first for first, _ in ranges], [last for _, last in ranges]

    def _v4(self) -> list[IPv4Network]:
        return [n for n in self._networks if isinstance(n, IPv4Network)]

    def _holds(self, address: str) -> bool:
        """Whether an IPv4 address is in one of the networks; half of all feeds are addresses, so without objects."""
        if address.partition(".")[0] not in self._octets:
            return False
        firsts, lasts = self._ranges
        number = int.from_bytes(inet_aton(address), "big")
        place = bisect_right(firsts, number) - 1
        return place >= 0 and number <= lasts[place]

    def covers(self, indicator: Indicator) -> bool:
        """Whether `indicator` must not be listed."""
        kind, value = indicator
        if kind == "domain":
            return self._hosts.cover(value)
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
        if (self._hosts if bare else self._own).cover(host.partition(":")[0]):
            return True
        if self._networks and host[-1:] in "0123456789]":
            try:
                address = ip_address(urlsplit(url).hostname or "")
            except ValueError:
                return False
            return self._within(ip_network(address))
        return False

    def _within(self, network: Network) -> bool:
        return any(network.version == n.version and network.overlaps(n) for n in self._networks)
