"""One feed, from asking for its copy to its rows: what it has to be like, and what keeps a bad copy out.

A copy is taken whole or not at all. Nothing is ever removed for not being in one, so a feed that is empty, broken or
somebody else's can add nothing wrong and take nothing away; it is red until it is well again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from shared.context import Context
from shared.feeds.allowed import Allowed
from shared.feeds.fetch import Caps, Copy, FeedFailed, NotModified, Validators, download
from shared.feeds.formats import FORMATS, Malformed
from shared.feeds.indicators import Reader
from shared.feeds.merge import Judge, Tally, merge, quarantine, stage
from shared.feeds.pages import pages
from shared.feeds.samples import sample
from shared.schema_feeds import feed_state

_MERGE_MS = 600_000


@dataclass(frozen=True)
class Feed:
    """A feed as task.yaml declares it.

    `confidence` (0 to 100) is for entries that name none. `secret` and `header` are the key's; `columns` are the CSV's.
    `current`: a list of what is so now. `every_h`: not asked more often. `pages`: comes in pages since the last time.
    """

    name: str
    format: str
    url: str
    confidence: int
    every_h: int = 1
    secret: str | None = None
    header: str | None = None
    current: bool = False
    pages: bool = False
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r}: known are {', '.join(sorted(FORMATS))}")
        if self.format == "csv" and "text" not in self.columns:
            raise ValueError(f"feed {self.name}: columns must say which one is the `text`")
        if not 1 <= self.confidence <= 100:
            raise ValueError(f"feed {self.name}: confidence: expected 1 to 100, got {self.confidence}")
        if (self.secret is None) != (self.header is None):
            raise ValueError(f"feed {self.name}: secret and header belong together")


@dataclass(frozen=True)
class Guard:
    """What a copy has to be like. `shrink_share`: the share of the last good copy's indicators it must still have,
    for `shrink_h` hours, after which the smaller one is believed. `bad_share`: the most of it that may be unfit.
    `refresh_h`: how often a copy that did not change is taken all the same, so that what it lists stays young."""

    shrink_share: float
    shrink_h: int
    bad_share: float
    refresh_h: int

    def __post_init__(self) -> None:
        for name in ("shrink_share", "bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"guard.{name}: expected 0 to 1, got {getattr(self, name)}")


class State(NamedTuple):
    """What is known of a feed from before."""

    validators: Validators = Validators()
    sha256: str | None = None
    indicators: int = 0
    tried_at: datetime | None = None
    good_at: datetime | None = None
    merged_at: datetime | None = None
    shrunk_since: datetime | None = None
    failures: int = 0


class Taken(NamedTuple):
    """What became of one feed: counts of its copy, or why there is none (`error`); `None` counts: it was not due."""

    counts: Mapping[str, int]
    error: str | None = None


class Suspicious(Exception):
    """The copy is of its format and not to be believed; the message says why. `shrunk`: it is smaller than it was."""

    def __init__(self, message: str, *, shrunk: bool = False) -> None:
        super().__init__(message)
        self.shrunk = shrunk


def take(
    ctx: Context,
    feed: Feed,
    *,
    key: str | None,
    samples: bool,
    caps: Caps,
    guard: Guard,
    allowed: Allowed,
    days: dict[str, int],
) -> Taken:
    """Fetch and merge `feed` if it is due. `key` is its secret's value; `samples`: the shipped copy instead."""
    with ctx.read() as connection:
        state = state_of(connection, feed.name)
    if state.tried_at and not state.failures and ctx.now - state.tried_at < timedelta(hours=feed.every_h, minutes=-10):
        return Taken({"not_due": 1})
    fresh = state.merged_at is not None and ctx.now - state.merged_at < timedelta(hours=guard.refresh_h)
    judge = Judge(feed.name, Reader(documentation=samples), allowed, feed.confidence, days, feed.current)
    try:
        if samples:
            with sample(feed.name) as copy:
                return _use(ctx, feed, copy, state, judge, guard, fresh=fresh)
        if feed.pages:
            with pages(ctx, feed.url, caps=caps, headers=_keyed(feed, key), since=state.good_at) as copy:
                return _use(ctx, feed, copy, state, judge, guard, fresh=False)
        known = state.validators if fresh else None
        with download(feed.url, clock=ctx.clock, caps=caps, headers=_keyed(feed, key), validators=known) as copy:
            return _use(ctx, feed, copy, state, judge, guard, fresh=fresh)
    except NotModified:
        _note(ctx, feed.name, good_at=ctx.now)
        return Taken({"unchanged": 1})
    except IntegrityError:
        words = "somebody else added some of its indicators meanwhile: it is taken again next time"
        _note(ctx, feed.name, failures=state.failures + 1, error=words)
        return Taken({"failed": 1}, f"{feed.name}: {words}")
    except (FeedFailed, Malformed, Suspicious) as error:
        shrunk = {"shrunk_since": state.shrunk_since or ctx.now} if getattr(error, "shrunk", False) else {}
        _note(ctx, feed.name, failures=state.failures + 1, error=str(error), **shrunk)
        return Taken({"failed": 1}, f"{feed.name}: {error}")


def _keyed(feed: Feed, key: str | None) -> dict[str, str]:
    accept = {"Accept": "application/json"} if feed.format != "csv" else {}
    return {**accept, feed.header: key} if feed.header and key else accept


def _use(ctx: Context, feed: Feed, copy: Copy, state: State, judge: Judge, guard: Guard, *, fresh: bool) -> Taken:
    if fresh and copy.sha256 == state.sha256:
        raise NotModified
    tally = Tally()
    entries = FORMATS[feed.format](copy.body, feed.columns)
    with ctx.begin(statement_timeout_ms=_MERGE_MS) as connection:
        stage(connection, judge.lines(entries, ctx.now, tally))
        _believe(tally, state, guard, ctx.now, growing=feed.pages)
        written, added = merge(connection, feed.name, now=ctx.now, refresh=timedelta(hours=guard.refresh_h))
        quarantine(connection, feed.name, tally, ctx.now)
        _write(
            connection,
            feed.name,
            etag=copy.validators.etag,
            last_modified=copy.validators.last_modified,
            sha256=copy.sha256,
            indicators=tally.accepted,
            tried_at=ctx.now,
            good_at=ctx.now,
            merged_at=ctx.now,
            shrunk_since=None,
            failures=0,
            error=None,
        )
    return Taken(
        {
            "entries": tally.entries,
            "accepted": tally.accepted,
            "unfit": tally.unfit,
            "allowed": tally.allowed,
            "written": written,
            "added": added,
        }
    )


def _believe(tally: Tally, state: State, guard: Guard, now: datetime, *, growing: bool) -> None:
    """Raise Suspicious for a copy that is not like the feed's others. A feed of news (`growing`) may be empty."""
    if growing:
        return
    if tally.accepted == 0:
        raise Suspicious("has no indicator at all", shrunk=True)
    if tally.unfit > guard.bad_share * tally.entries:
        raise Suspicious(f"{tally.unfit} of {tally.entries} entries are unfit: has its format changed?")
    if tally.accepted < guard.shrink_share * state.indicators:
        since = state.shrunk_since or now
        if now - since < timedelta(hours=guard.shrink_h):
            raise Suspicious(
                f"shrank from {state.indicators} indicators to {tally.accepted}: believed if it stays so for "
                f"{guard.shrink_h} hours",
                shrunk=True,
            )


# --- state


def state_of(connection: Connection, feed: str) -> State:
    """What is known of `feed`."""
    s = feed_state.c
    columns = (s.etag, s.last_modified, s.sha256, s.indicators, s.tried_at, s.good_at, s.merged_at, s.shrunk_since)
    row = connection.execute(select(*columns, s.failures).where(s.feed == feed)).one_or_none()
    if row is None:
        return State()
    etag, last_modified, *rest = row
    return State(Validators(etag, last_modified), *rest)


def _write(connection: Connection, feed: str, **values: object) -> None:
    connection.execute(
        insert(feed_state).values(feed=feed, **values).on_conflict_do_update(index_elements=["feed"], set_=values)
    )


def _note(ctx: Context, feed: str, *, failures: int = 0, error: str | None = None, **values: object) -> None:
    with ctx.begin() as connection:
        _write(connection, feed, tried_at=ctx.now, failures=failures, error=error, **values)
