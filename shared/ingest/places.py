"""Where an address is and whose network: by files in MaxMind's format, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import maxminddb

from shared import objects
from shared.ingest.fields import Address

CITY, NETWORK = "geo/city.mmdb", "geo/asn.mmdb"


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of an address; None is not known. Coordinates are left out: a town is as near as anybody needs."""

    location: str | None = None
    asn: int | None = None
    isp: str | None = None


class Places(Protocol):
    """Looks addresses up."""

    def of(self, address: Address | None) -> Place:
        """The place of an address; an empty one where nothing is known."""
        ...


class Nowhere:
    """For a plane without files."""

    def of(self, address: Address | None) -> Place:
        return Place()


class MaxMind:
    """Two files: one of towns (GeoLite2-City or its like), one of networks (GeoLite2-ASN); either may be missing."""

    def __init__(self, city: Any | None, network: Any | None) -> None:
        self._city, self._network = city, network

    def of(self, address: Address | None) -> Place:
        if address is None:
            return Place()
        town, network = _look(self._city, address), _look(self._network, address)
        asn = network.get("autonomous_system_number")
        isp = network.get("autonomous_system_organization")
        return Place(
            _location(town), asn if isinstance(asn, int) else None, isp[:200] if isinstance(isp, str) else None
        )


def _look(reader: Any | None, address: Address) -> dict[str, Any]:
    if reader is None or (address.version == 6 and reader.metadata().ip_version == 4):
        return {}
    found = reader.get(address)
    return found if isinstance(found, dict) else {}


def _location(town: dict[str, Any]) -> str | None:
    name = town.get("city", {}).get("names", {}).get("en")
    country = town.get("country", {}).get("iso_code")
    return ", ".join(part for part in (name, country) if part) or None


def places(files: Callable[[], objects.Objects]) -> Places:
    """The files below `geo/` of a place for objects; read once a process as long as they stay the same."""
    store = files()
    city, network = _reader(store, CITY), _reader(store, NETWORK)
    return MaxMind(city, network) if city or network else Nowhere()


def _reader(store: objects.Objects, name: str) -> Any | None:
    try:
        return _opened(store.location, name, store.stat(name).generation)
    except objects.Missing:
        return None


@lru_cache(maxsize=4)
def _opened(location: str, name: str, _generation: int) -> Any:
    with objects.at(location).open(name) as stream:
        return maxminddb.open_database(stream, maxminddb.MODE_FD)
