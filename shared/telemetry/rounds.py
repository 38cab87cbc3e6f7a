"""One round over the active services: probe, ask the canaries whether to believe it, keep what was learned."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from shared.context import Context
from shared.telemetry.maintenance import BadWindow, under_maintenance, windows
from shared.telemetry.prober import Prober
from shared.telemetry.probes import Finding, Probe, Verdict
from shared.telemetry.results import Seen, active, keep
from shared.telemetry.state import Hysteresis
from shared.telemetry.targets import BadTarget, Target, parse

_CANARY_S = 5.0  # a canary has time of its own: a round that was late must not look like a broken network
_CHUNK = 1000  # findings a transaction: short ones hold nobody up


@dataclass(frozen=True)
class Rules:
    """What a round is judged by."""

    hysteresis: Hysteresis
    certificate_days: tuple[int, ...]
    round_s: float


@dataclass(frozen=True)
class Round:
    """What came of a round: whether we could see at all, and how many results had no partition to go to."""

    blind: bool
    lost: int


def canaries(urls: Sequence[str]) -> tuple[Target, ...]:
    """The places whose answers prove that the trouble is not ours. Raises BadTarget."""
    return tuple(parse("tcp" if url.startswith("tcp:") else "http", url) for url in urls)


def play(ctx: Context, prober: Prober, watch: Sequence[Target], rules: Rules) -> Round:
    """One round. Without a canary's answer nothing is probed; without one at the end, no failure is believed."""
    urls, resting, probes, unusable = _read(ctx)
    with ctx.begin():
        pass  # before the first packet: the lease is ours, nobody paused us, and a plan ends here
    blind = not _sees(ctx, prober, watch)
    at, until = ctx.clock.now(), ctx.clock.monotonic() + min(rules.round_s, ctx.time_left())
    findings = (
        [Finding(p.key, at, Verdict.UNKNOWN, error="ours: no canary answered") for p in probes]
        if blind
        else list(prober.probe(probes, until=until, stopping=lambda: ctx.stopping))
    )
    if not blind and any(f.verdict is Verdict.DOWN for f in findings):
        blind = not _sees(ctx, prober, watch)
    if blind:
        findings = [_disbelieved(f) for f in findings]
    seen = chain(
        (Seen(key, urls[key], at, None) for key in resting),
        (Seen(f.key, urls[f.key], f.at, f) for f in chain(findings, unusable)),
    )
    _count(ctx, findings, resting, unusable)
    lost = 0
    for done, chunk in enumerate(_chunks(seen)):
        lost += keep(ctx, chunk, rules.hysteresis, rules.certificate_days)
        ctx.progress(done * _CHUNK + len(chunk), len(urls))
    return Round(blind, lost)


def _read(ctx: Context) -> tuple[dict[int, str], list[int], list[Probe], list[Finding]]:
    """URLs by service, ids under maintenance, what to probe, and findings for what nobody can read."""
    with ctx.read() as connection:
        rows = active(connection)
    ctx.count("services", len(rows))
    now = ctx.clock.now()
    resting, probes, unusable = [], [], []
    for row in rows:
        try:
            if under_maintenance(windows(row.maintenance), now):
                resting.append(row.id)
            else:
                probes.append(Probe(row.id, parse(row.kind, row.url)))
        except (BadWindow, BadTarget) as bad:
            ctx.log.warning("a service cannot be probed as it is written", service_id=row.id, error=str(bad))
            unusable.append(Finding(row.id, now, Verdict.UNKNOWN, error=str(bad)))
    return {row.id: row.url for row in rows}, resting, probes, unusable


def _sees(ctx: Context, prober: Prober, watch: Sequence[Target]) -> bool:
    """Whether any canary answers."""
    until = ctx.clock.monotonic() + _CANARY_S
    probes = [Probe(-1 - number, target) for number, target in enumerate(watch)]
    return any(f.verdict is Verdict.UP for f in list(prober.probe(probes, until=until)))


def _disbelieved(finding: Finding) -> Finding:
    """An answer stands: it was one. A failure does not."""
    if finding.verdict is Verdict.UP:
        return finding
    return Finding(finding.key, finding.at, Verdict.UNKNOWN, error="ours: no canary answered")


def _count(ctx: Context, findings: Iterable[Finding], resting: Sequence[int], unusable: Sequence[Finding]) -> None:
    for finding in findings:
        ctx.count(finding.verdict.value)
    ctx.count("maintenance", len(resting))
    ctx.count("unusable", len(unusable))


def _chunks(seen: Iterable[Seen]) -> Iterator[list[Seen]]:
    rest = iter(seen)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
