"""Looks every night for breaches and mentions of what is ours, and tells what is new.

It never stores or logs an address (a keyed hash stands for it), sends none to anybody (six digits of a hash at most),
never visits a hidden service, and looks for customers' addresses only when that is switched on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from shared.darkweb import ahmia, hibp, samples
from shared.darkweb.service import Manners, NotYet, Service, ServiceFailed, Shipped, place_of
from shared.errors import Partial, Stopped, Unavailable
from shared.task import Context, entrypoint

_KEY, _HIBP_KEY = "dark-web-hash-key", "hibp-key"


@dataclass(frozen=True)
class Params:
    source: Literal["live", "samples"]
    domains: str
    terms: str
    customers: bool
    hibp: str
    ahmia: str
    manners: Manners


def run(ctx: Context, params: Params) -> dict[str, int]:
    for name in ("found", "new", "breaches_checked", "domains_checked", "addresses_checked", "terms_checked"):
        ctx.count(name, 0)
    live = params.source == "live"
    domains = _words(params.domains) if live else samples.DOMAINS
    terms = _words(params.terms) if live else samples.TERMS
    left_out: list[str] = []
    wrong: list[str] = []
    waiting: list[str] = []
    key, hibp_key = (_secret(ctx, _KEY), _secret(ctx, _HIBP_KEY)) if live else (samples.KEY, "")

    def scan(name: str, base: str, work: Callable[[Service], None], headers: dict[str, str] | None = None) -> None:
        """One scan in its own place; what goes wrong in it hides no other."""
        place = place_of(ctx, name)
        kind = Service if live else Shipped
        try:
            with kind(ctx, name, place, base=base, manners=params.manners, headers=headers or {}) as service:
                work(service)
        except ServiceFailed as error:
            wrong.append(f"{name}: {error}")
        except NotYet as error:
            waiting.append(f"{name} {error}")

    if domains:
        scan("hibp_breaches", params.hibp, lambda service: hibp.breaches(ctx, service, domains))
    else:
        left_out.append("breaches of our domains (OWN_DOMAINS is empty)")
    if key is None or hibp_key is None:
        missing = " and ".join(n for n, v in ((_KEY, key), (_HIBP_KEY, hibp_key)) if v is None)
        left_out.append(f"addresses at our domains{' and of customers' * params.customers} (secret {missing})")
    else:
        sent = {"hibp-api-key": hibp_key} if hibp_key else {}
        for domain in domains:
            scan("hibp_domain", params.hibp, partial(hibp.domain, ctx, name=domain, key=key), sent)
        if params.customers:
            name = "hibp_customers"
            scan(name, params.hibp, lambda s: hibp.customers(ctx, s, s.place, key, scan=name), sent)
    for term in terms:
        scan("ahmia", params.ahmia, partial(ahmia.mentions, ctx, term=term))
    if not terms:
        left_out.append("mentions (BRAND_TERMS is empty)")
    if wrong:
        raise Partial(wrong, ctx.counts)
    if waiting:
        raise Stopped(f"{'; '.join(waiting)}; the next run goes on from there")
    if left_out:
        raise Unavailable(f"left out: {'; '.join(left_out)}")
    return ctx.counts


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _secret(ctx: Context, name: str) -> str | None:
    """The secret's value, or None where nobody has given it one."""
    try:
        return ctx.secret(name)
    except Unavailable:
        return None


main = entrypoint(__file__, run)
