"""Which addresses a probe may reach: public ones, and what the caller names. Everything else is refused.

Targets are written by strangers, so this decides on numbers, never on names: what a name means is asked once, each
answer is judged here, and the connection goes to the judged number. Two lists must agree that an address is public:
ours, after the IANA special-purpose registries, and the standard library's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry and its IPv6 sister, by what they are for; then
# addresses that are public by number and yet answer from inside a cloud. The first match gives the reason.
_REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    # 169.254.169.254 and fd20:ce::254 are Google's metadata servers, 168.63.129.16 and 100.100.100.200 others'.
    ("metadata", ("169.254.169.254/32", "fd20:ce::254/128", "fd00:ec2::/32", "168.63.129.16/32", "100.100.100.200/32")),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    # An IPv4 address in disguise: it would reach what the table refuses under its own name.
    (
        "mapped",
        ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    ),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    # Google's own services on private paths: https://cloud.google.com/vpc/docs/configure-private-google-access
    ("internal", ("199.36.153.4/30", "199.36.153.8/30", "2600:2d00:2:1000::/64", "2600:2d00:2:2000::/64")),
    (
        "reserved",
        (
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "100::/64",
            "100:0:0:1::/64",
            "2001::/23",
            "2001:db8::/32",
            "2620:4f:8000::/48",
            "3fff::/20",
            "5f00::/16",
        ),
    ),
)
_TABLE = tuple((reason, tuple(map(ip_network, networks))) for reason, networks in _REFUSED)
_GLOBAL_UNICAST = ip_network("2000::/3")  # all of IPv6 that is given out; the rest is nobody's


@dataclass(frozen=True)
class Reach:
    """What may be connected to: public addresses without `refuse`, and `allow` whatever it is. Default: public only."""

    allow: tuple[Network, ...] = ()
    refuse: tuple[Network, ...] = ()

    @classmethod
    def of(cls, *, allow: Iterable[str] = (), refuse: Iterable[str] = ()) -> "Reach":
        """From networks in text like 10.1.0.0/16. Raises ValueError naming a wrong one."""
        return cls(tuple(map(ip_network, allow)), tuple(map(ip_network, refuse)))

    def objection(self, address: Address) -> str | None:
        """Why `address` may not be reached, in one word; None when it may."""
        if any(address in network for network in self.refuse):
            return "internal"
        if any(address in network for network in self.allow):
            return None
        for reason, networks in _TABLE:
            if any(address in network for network in networks):
                return reason
        if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
            return "reserved"
        return None if address.is_global and not address.is_multicast else "reserved"


@dataclass(frozen=True)
class Pin:
    """One address that was judged reachable. `pin` is the only maker: holding a Pin is the permission to connect."""

    address: Address
    _token: object

    def __post_init__(self) -> None:
        if self._token is not _JUDGED:
            raise TypeError("a Pin is made by addresses.pin, which judges the address")

    @property
    def text(self) -> str:
        """The address as the socket layer writes it."""
        return str(self.address)

    @property
    def in_url(self) -> str:
        """The address as a URL's authority writes it."""
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)


_JUDGED = object()


class Forbidden(Exception):
    """None of the addresses may be reached; `reason` is the objection to the first."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: the address is {reason}")
        self.reason = reason


def pin(texts: Iterable[str], reach: Reach) -> tuple[Pin, ...]:
    """The reachable ones of `texts`, IPv4 first: Cloud Run's way out has no IPv6. Raises Forbidden when none is.

    A scoped address (fe80::1%eth0) is never reachable: its meaning is this machine's.
    """
    found, reason = [], "absent"
    for text in texts:
        address = ip_address(text.partition("%")[0])
        objection = "link-local" if "%" in text else reach.objection(address)
        if objection is None:
            found.append(Pin(address, _JUDGED))
        elif reason == "absent":
            reason = objection
    if not found:
        raise Forbidden(reason)
    return tuple(sorted(found, key=lambda pinned: pinned.address.version))
