"""The pages that are due in a run, and their results: a row a page and run, a trimmed report beside it."""

import gzip
import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from shared.context import Context
from shared.lighthouse.scanner import Scan
from shared.objects import Exists

# What this run has scanned before it was killed is not scanned again.
_DUE = text("""
    select p.id, p.account_id, p.url
      from status_page p
     where p.is_public
       and mod(p.id, cast(:shards as bigint)) = :shard
       and not exists (select from lighthouse_scan s where s.status_page_id = p.id and s.scanned_at = :now)
     order by p.id""")

_KEEP = text("""
    insert into lighthouse_scan
           (account_id, status_page_id, url, performance, accessibility, best_practices, seo, lcp_ms, tbt_ms, cls,
            report, error, scanned_at)
    select p.account_id, p.id, :url, :performance, :accessibility, :best_practices, :seo, :lcp_ms, :tbt_ms, :cls,
           :report, :error, :now
      from status_page p
     where p.id = :id""")


def due(ctx: Context) -> Sequence[Any]:
    """The public pages of this shard that the run has not scanned: id, account_id, url."""
    with ctx.read() as connection:
        binds = {"shards": ctx.task.run.tasks, "shard": ctx.shard, "now": ctx.now}
        return connection.execute(_DUE, binds).all()


def keep(ctx: Context, page: Any, found: Scan) -> None:
    """Write a page's result under the run's moment; a page that went away meanwhile has none."""
    location = _report(ctx, page, found)
    with ctx.begin() as connection:
        connection.execute(
            _KEEP,
            {
                "id": page.id,
                "url": page.url,
                "performance": found.scores["performance"],
                "accessibility": found.scores["accessibility"],
                "best_practices": found.scores["best-practices"],
                "seo": found.scores["seo"],
                "lcp_ms": found.lcp_ms,
                "tbt_ms": found.tbt_ms,
                "cls": found.cls,
                "report": location,
                "error": found.error,
                "now": ctx.now,
            },
        )
        ctx.count("scanned")
        ctx.count("dead", int(found.error is not None))


def _report(ctx: Context, page: Any, found: Scan) -> str | None:
    if found.report is None:
        return None
    place = ctx.objects("telemetry")
    # of this attempt: what a killed one wrote has no row, and goes with the bucket's lifecycle
    name = f"lighthouse/{ctx.now:%Y/%m/%d}/{page.id}-{uuid.uuid5(ctx.run_id, f'{page.id}/{ctx.attempt}')}.json.gz"
    try:
        with place.create(name) as stream:
            stream.write(gzip.compress(json.dumps(found.report).encode(), mtime=0))
    except Exists:  # written by this very attempt, whose transaction then failed
        pass
    return f"{place.location}/{name}"
