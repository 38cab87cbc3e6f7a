"""What is due with the data keys: read without a lock, for the compliance check and for a rotation's plan."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from shared.holds import Hold
from shared.keys.data_keys import Key, census, keys

TABLES = ("data_encryption_key", "integration_credential")


@dataclass(frozen=True)
class Survey:
    """The keys as they are, and how many rows each seals."""

    keys: tuple[Key, ...]
    sealed: dict[int, int]
    primary: str  # the KEK's version that wraps now

    @property
    def active(self) -> Key | None:
        return next((key for key in self.keys if key.state == "active"), None)

    @property
    def rows(self) -> int:
        return sum(self.sealed.values())

    @property
    def on_older_keys(self) -> int:
        """Rows that another key than the active one seals."""
        return self.rows - (self.sealed.get(self.active.id, 0) if self.active else 0)

    @property
    def to_rewrap(self) -> tuple[Key, ...]:
        """Keys that another version of the KEK wrapped."""
        return tuple(key for key in self.keys if key.wrapped is not None and key.kek != self.primary)

    def too_old(self, now: datetime, most: timedelta) -> bool:
        """Whether a new key is due: the active one is older than `most`, or there is none."""
        return self.active is None or now - self.active.created_at > most

    def retired_before(self, moment: datetime) -> tuple[Key, ...]:
        """Retired keys that nothing needs any more, once `moment` is as far back as the oldest backup."""
        return tuple(
            key
            for key in self.keys
            if key.state == "retired" and key.retired_at is not None and key.retired_at <= moment
        )


def look(connection: Connection, primary: str) -> Survey:
    """The keys as they are now; `primary` is the KEK's."""
    return Survey(tuple(keys(connection)), census(connection), primary)


def archived(connection: Connection, now: datetime) -> bool:
    """Whether an archive that has not expired holds sealed rows: its keys must stay."""
    found = connection.execute(
        text("""
            select 1
              from groundskeeper.archive_manifest
             where destroyed_at is null and expires_at > :now and source like '%integration_credential'
             limit 1"""),
        {"now": now},
    )
    return found.first() is not None


def held(holds: list[Hold]) -> bool:
    """Whether a legal hold keeps keys from being destroyed: any but one on other tables, since an account's sealed
    rows may be in backups only."""
    return any(hold.table is None or hold.table.removeprefix("public.") in TABLES for hold in holds)
