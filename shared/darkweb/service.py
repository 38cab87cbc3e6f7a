"""Ask somebody's service politely: at most so often, and not again before it said so, also across runs.

What may be asked next, and when, stands in groundskeeper.scan_state, written as the scan goes on: a run that is
killed, stopped or told to wait leaves the next one a place to go on from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import requests
from requests.packages.urllib3.exceptions import HTTPError, ReadTimeoutError  # type: ignore[import-not-found]
from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from shared.context import Context
from shared.darkweb.samples import ANSWERS
from shared.schema_feeds import scan_state

# Have I Been Pwned refuses whoever has no name.
_AGENT = "Groundskeeper (breach monitoring)"
_CHUNK = 1 << 16
# What is asked for in Retry-After is waited for up to this long; a longer wait is the next run's.
_PATIENCE = timedelta(minutes=2)
_TRIES = 5


class ServiceFailed(Exception):
    """The service gave no answer that is of use. The message is fit for a log: no address, no key, nobody's name."""


class NotYet(Exception):
    """The service wants to be left alone until `moment`."""

    def __init__(self, moment: datetime) -> None:
        super().__init__(f"asks to be left alone until {moment.isoformat(timespec='seconds')}")
        self.moment = moment


@dataclass(frozen=True)
class Manners:
    """How often at most, and how large an answer may be: requests a minute, seconds, megabytes."""

    per_minute: int
    answer_s: int
    mb: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")


@dataclass
class Place:
    """Where a scan is. `cursor` is the scan's own."""

    cursor: dict[str, Any]
    not_before: datetime | None
    finished_at: datetime | None


def place_of(ctx: Context, scan: str) -> Place:
    """Where `scan` has come to."""
    columns = (scan_state.c.cursor, scan_state.c.not_before, scan_state.c.finished_at)
    with ctx.read() as connection:
        row = connection.execute(select(*columns).where(scan_state.c.scan == scan)).one_or_none()
    return Place(dict(row.cursor), row.not_before, row.finished_at) if row else Place({}, None, None)


def keep(connection: Connection, scan: str, place: Place, now: datetime) -> None:
    """Remember where `scan` is, with the caller's transaction."""
    values = {
        "cursor": place.cursor,
        "not_before": place.not_before,
        "finished_at": place.finished_at,
        "updated_at": now,
    }
    connection.execute(
        insert(scan_state).values(scan=scan, **values).on_conflict_do_update(index_elements=["scan"], set_=values)
    )


class Service:
    """One service, asked by one scan."""

    def __init__(
        self, ctx: Context, scan: str, place: Place, *, base: str, manners: Manners, headers: Mapping[str, str]
    ) -> None:
        """`headers` (a key, say) go to the host of `base` alone: redirects are not followed."""
        self._ctx, self._scan, self.place = ctx, scan, place
        self._base, self._manners = base.rstrip("/"), manners
        self._next = 0.0
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": _AGENT, **headers})
        self.asked = 0

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, path: str, **query: str) -> bytes | None:
        """The answer's body; None for 404, which means nothing is known.

        Raises NotYet (kept for the next run), ServiceFailed, and Stopped at the deadline.
        """
        for _ in range(_TRIES):
            self._wait()
            self.asked += 1
            try:
                with self._session.get(
                    f"{self._base}{path}",
                    params=query,
                    stream=True,
                    allow_redirects=False,
                    timeout=self._manners.answer_s,
                ) as answer:
                    if not self._told_to_wait(answer):
                        return self._judge(answer)
            except (requests.Timeout, ReadTimeoutError):
                raise ServiceFailed(f"did not answer within {self._manners.answer_s} s") from None
            except (requests.RequestException, HTTPError):
                raise ServiceFailed("the connection could not be made, or broke") from None
        raise ServiceFailed(f"asked for patience {_TRIES} times on end")

    def json(self, path: str, **query: str) -> Any:
        """The answer's JSON; None for 404. Raises as `get` does."""
        body = self.get(path, **query)
        try:
            return None if body is None else json.loads(body)
        except (ValueError, RecursionError):
            raise ServiceFailed("its answer is not JSON") from None

    def _wait(self) -> None:
        if self.place.not_before is not None:
            until = self.place.not_before - self._ctx.clock.now()
            if until > min(_PATIENCE, timedelta(seconds=self._ctx.time_left())):
                raise NotYet(self.place.not_before)
            self._next = max(self._next, self._ctx.clock.monotonic() + until.total_seconds())
        while (left := self._next - self._ctx.clock.monotonic()) > 0:
            self._ctx.check()
            self._ctx.clock.sleep(min(left, 1.0))
        self._ctx.check()
        self._next = self._ctx.clock.monotonic() + 60 / self._manners.per_minute

    def _told_to_wait(self, answer: requests.Response) -> bool:
        """Whether the service asked for patience; until when is kept, for this run and the next."""
        wait = answer.headers.get("Retry-After", "")
        if answer.status_code not in (429, 503) or not wait.isdecimal() or len(wait) > 6:
            return False
        # a second more: the service counts by its own clock
        self.place.not_before = self._ctx.clock.now() + timedelta(seconds=int(wait) + 1)
        with self._ctx.begin() as connection:
            keep(connection, self._scan, self.place, self._ctx.clock.now())
        return True

    def _judge(self, answer: requests.Response) -> bytes | None:
        status = answer.status_code
        if status == 404:
            return None
        if status in (401, 403):
            raise ServiceFailed(f"refused us ({status}): is the key right?")
        if status != 200:
            raise ServiceFailed(f"answered {status}")
        body = bytearray()
        # read1 gives what has come: with read, a server that drips would hold us as long as it likes
        while chunk := answer.raw.read1(_CHUNK, decode_content=True):
            self._ctx.check()
            body += chunk
            if len(body) > self._manners.mb << 20:
                raise ServiceFailed(f"its answer is larger than {self._manners.mb} MB")
        return bytes(body)


class Shipped(Service):
    """The same service as it answers in the shipped samples: nobody is asked."""

    def get(self, path: str, **query: str) -> bytes | None:
        """The sample for `path`; None where there is none, as for 404."""
        self.asked += 1
        return ANSWERS.get(path)
