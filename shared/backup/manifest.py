"""The manifest of a backup: written last, so what has none does not exist. One JSON document beside the dump."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from shared.backup.fingerprint import Content, Fingerprint, Surroundings
from shared.clock import parse_rfc3339, rfc3339

FORMAT = 1


class Unreadable(Exception):
    """The document is no manifest of a backup; the message says what is wrong with it."""


@dataclass(frozen=True)
class Stamp:
    """Which environment a database belongs to, as the ledger has it."""

    project: str
    livemode: bool


@dataclass(frozen=True)
class Dump:
    """The dump's file: size in bytes, SHA-256 as hex, CRC32C as Cloud Storage writes it (base64)."""

    bytes: int
    sha256: str
    crc32c: str


@dataclass(frozen=True)
class Manifest:
    """One backup. `taken_at` is when its snapshot was made; `finished_at` when the dump was whole."""

    name: str
    run_id: str
    stamp: Stamp
    client: str  # the first line of pg_dump --version
    taken_at: datetime
    finished_at: datetime
    dump: Dump
    surroundings: Surroundings
    fingerprint: Fingerprint

    def document(self) -> bytes:
        """The manifest as it is stored."""
        print_ = self.fingerprint
        return json.dumps(
            {
                "format": FORMAT,
                "name": self.name,
                "run_id": self.run_id,
                "stamp": asdict(self.stamp),
                "client": self.client,
                "taken_at": rfc3339(self.taken_at),
                "finished_at": rfc3339(self.finished_at),
                "dump": asdict(self.dump),
                "surroundings": asdict(self.surroundings),
                "tables": {name: [c.rows, c.hash] for name, c in sorted(print_.tables.items())},
                "large_objects": [print_.large_objects.rows, print_.large_objects.hash],
                "sequences": dict(sorted(print_.sequences.items())),
                "shape": dict(sorted(print_.shape.items())),
            },
            indent=1,
        ).encode()


def parse(document: bytes) -> Manifest:
    """The manifest that `document` is. Raises Unreadable."""
    try:
        found = json.loads(document)
        if found["format"] != FORMAT:
            raise Unreadable(f"its format is {found['format']!r}, this code reads {FORMAT}")
        return Manifest(
            name=str(found["name"]),
            run_id=str(found["run_id"]),
            stamp=Stamp(str(found["stamp"]["project"]), bool(found["stamp"]["livemode"])),
            client=str(found["client"]),
            taken_at=parse_rfc3339(found["taken_at"]),
            finished_at=parse_rfc3339(found["finished_at"]),
            dump=Dump(int(found["dump"]["bytes"]), str(found["dump"]["sha256"]), str(found["dump"]["crc32c"])),
            surroundings=_surroundings(found["surroundings"]),
            fingerprint=Fingerprint(
                tables={name: _content(pair) for name, pair in found["tables"].items()},
                large_objects=_content(found["large_objects"]),
                sequences={name: int(value) for name, value in found["sequences"].items()},
                shape={kind: int(count) for kind, count in found["shape"].items()},
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"it is not the JSON of a manifest ({type(error).__name__})") from error


def _content(pair: Any) -> Content:
    rows, hash_ = pair
    return Content(int(rows), str(hash_))


def _surroundings(found: Mapping[str, Any]) -> Surroundings:
    return Surroundings(
        database=str(found["database"]),
        server_version=int(found["server_version"]),
        encoding=str(found["encoding"]),
        bytes=int(found["bytes"]),
        roles=tuple(found["roles"]),
        extensions=tuple(found["extensions"]),
    )
