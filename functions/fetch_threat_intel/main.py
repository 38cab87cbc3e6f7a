"""Fetches threat feeds hourly and merges what they list, with who says so and how sure.

It never deletes a row: what nobody lists any more ages and expires. It never takes half a copy, never lists the
platform itself or what half the world stands on, and never sends a key to another host.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from shared.errors import Partial, Unavailable
from shared.feeds.allowed import Allowed
from shared.feeds.feed import Feed, Guard, state_of, take
from shared.feeds.fetch import Caps
from shared.feeds.merge import age
from shared.schema_feeds import scan_state
from shared.task import Context, entrypoint

_AGEING = "threat_ageing"


@dataclass(frozen=True)
class Ageing:
    every_h: int
    speed: float
    step: int
    days: dict[str, int]


@dataclass(frozen=True)
class Params:
    source: Literal["live", "samples"]
    without: str
    stale_h: int
    caps: Caps
    guard: Guard
    ageing: Ageing
    allow: Allowed
    feeds: tuple[Feed, ...]


def run(ctx: Context, params: Params) -> dict[str, int]:
    without = {name.strip() for name in params.without.split(",")}
    wrong: list[str] = []
    keyless: list[str] = []
    for name in ("entries", "accepted", "unfit", "allowed", "written", "added", "failed", "aged"):
        ctx.count(name, 0)
    for feed in [f for f in params.feeds if f.name not in without]:
        ctx.check()
        try:
            key = ctx.secret(feed.secret) if feed.secret and params.source == "live" else None
        except Unavailable:
            keyless.append(f"{feed.name} (secret {feed.secret})")
            continue
        if error := _take(ctx, params, feed, key):
            wrong.append(error)
    _age(ctx, params.ageing)
    if wrong:
        raise Partial(wrong, ctx.counts)
    if keyless:
        raise Unavailable(
            f"left out for want of a key: {', '.join(keyless)}: add it, or name the feed in THREAT_FEEDS_WITHOUT"
        )
    return ctx.counts


def _take(ctx: Context, params: Params, feed: Feed, key: str | None) -> str | None:
    """Take one feed and count it; what is wrong with it, in words."""
    taken = take(
        ctx,
        feed,
        key=key,
        samples=params.source == "samples",
        caps=params.caps,
        guard=params.guard,
        allowed=params.allow,
        days=params.ageing.days,
    )
    for name, number in taken.counts.items():
        ctx.count(name, number)
    with ctx.read() as connection:
        good_at = state_of(connection, feed.name).good_at
    old = ctx.now - good_at if good_at else None
    ctx.count(f"{feed.name}.age_h", int(old.total_seconds() // 3600) if old is not None else params.stale_h)
    said = ctx.log.warning if taken.error else ctx.log.info
    said("feed taken", feed=feed.name, **taken.counts, error=taken.error, good_at=good_at)
    if taken.error is None and (old is None or old > timedelta(hours=params.stale_h)):
        return f"{feed.name}: its last good copy is older than {params.stale_h} hours"
    return taken.error


def _age(ctx: Context, ageing: Ageing) -> None:
    """Lower scores once in a while: a row's score is good enough for hours."""
    with ctx.read() as connection:
        last = connection.execute(select(scan_state.c.finished_at).where(scan_state.c.scan == _AGEING)).scalar()
    if last is not None and ctx.now - last < timedelta(hours=ageing.every_h, minutes=-10):
        return
    ctx.count("aged", age(ctx, speed=ageing.speed, step=ageing.step))
    values = {"finished_at": ctx.now, "updated_at": ctx.now}
    with ctx.begin() as connection:
        connection.execute(
            insert(scan_state)
            .values(scan=_AGEING, **values)
            .on_conflict_do_update(index_elements=["scan"], set_=values)
        )


main = entrypoint(__file__, run)
