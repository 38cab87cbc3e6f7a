"""Scans each public page with the real Lighthouse and keeps scores, vitals and a trimmed report.

A dead page is a result. It never reaches an address that is not public, whatever a page or its redirects say, and
leaves no browser behind.
"""

from dataclasses import dataclass

from shared.addresses import Reach
from shared.errors import Partial
from shared.lighthouse.pages import due, keep
from shared.lighthouse.scanner import Limits, ScannerBroke, scan, tools
from shared.task import Context, entrypoint


@dataclass(frozen=True)
class Params:
    allow_networks: tuple[str, ...]
    limits: Limits


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("scanned", "dead"):
        ctx.count(name, 0)
    pages = due(ctx)
    with_, reach = tools(), Reach.of(allow=params.allow_networks)
    broke: list[str] = []
    for done, page in enumerate(pages):
        if ctx.time_left() < params.limits.scan_s + 10:
            ctx.log.info("left pages for the next run", pages=len(pages) - done)
            break
        ctx.check()
        try:
            keep(ctx, page, scan(page.url, with_, params.limits, reach))
        except ScannerBroke:
            broke.append(f"page {page.id}: Lighthouse ended without a report")
        ctx.progress(done + 1, len(pages))
    if broke:
        raise Partial(broke, ctx.counts)
    return ctx.counts


main = entrypoint(__file__, run)
