"""The demo's cast: who has an account, what they monitor, and when it went wrong."""

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

ACCOUNTS = 40
TELEMETRY_DAYS = 45  # raw rows
ROWS_A_DAY = 4450  # of raw telemetry: some 200,000 in all
PAYING = range(12)  # tier pro, with a Stripe customer
GRANTED = range(12, 16)  # tier pro by hand: no Stripe customer
FORMER = range(16, 19)  # tier free again, with a Stripe customer
HELD = 7  # this account is under a legal hold

_FIRST = (
    "Ada",
    "Blaise",
    "Carl",
    "Dorothy",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Joan",
    "Katherine",
    "Lise",
    "Mary",
    "Niklaus",
    "Olga",
    "Paul",
)
_LAST = (
    "Abel",
    "Bosch",
    "Curie",
    "Drake",
    "Euler",
    "Fermi",
    "Gauss",
    "Hopper",
    "Ito",
    "Jacobi",
    "Kepler",
    "Lamarr",
    "Meyer",
    "Noether",
    "Ostrom",
    "Pascal",
)
_WEEK = (1.06, 1.10, 1.10, 1.06, 1.0, 0.85, 0.83)
_KINDS = ("http", "http", "http", "http", "tls", "tcp")


@dataclass(frozen=True)
class Account:
    """One customer. `tier` is free or pro."""

    account_id: str
    name: str
    domain: str
    tier: str
    customer: str | None
    subscription: str | None
    since: datetime


@dataclass(frozen=True)
class Outage:
    """A service was down from `start` until `end` (None: it still is)."""

    start: datetime
    end: datetime | None
    severity: str
    cause: str


@dataclass(frozen=True)
class Service:
    """One thing monitored. `base_ms` is its usual response time."""

    service_id: int
    account: Account
    page_id: int
    kind: str
    name: str
    url: str
    base_ms: float
    outages: tuple[Outage, ...]
    strained: Mapping[date, float]  # days on which it answered more slowly than usual, and by how much

    def load(self, moment: datetime) -> float:
        """The factor of its usual response time on that day: less at weekends, more before it fails."""
        day = moment.date()
        return _WEEK[day.weekday()] * self.strained.get(day, 1.0)

    def outage_at(self, moment: datetime) -> Outage | None:
        """The outage at `moment`, if there was one."""
        return next((o for o in self.outages if o.start <= moment and (o.end is None or moment < o.end)), None)


@dataclass(frozen=True)
class World:
    """Everything the rows agree on. `attacks` are the hours in which bots came in numbers; each day has `rows_a_day` of
    raw telemetry, or more where the pings of its services are more."""

    now: datetime
    rng: random.Random
    accounts: tuple[Account, ...]
    services: tuple[Service, ...]
    attacks: tuple[datetime, ...]
    rows_a_day: int

    @classmethod
    def of(cls, now: datetime, rng: random.Random, rows_a_day: int = ROWS_A_DAY) -> "World":
        """The cast as of `now` (aware). Raises ValueError for a time without zone."""
        if now.tzinfo is None:
            raise ValueError("the demo needs an aware time")
        now = now.astimezone(UTC)
        accounts = tuple(_account(n, now, rng) for n in range(ACCOUNTS))
        services: list[Service] = []
        for account in accounts:
            for _ in range(rng.choice((1, 1, 2) if account.tier == "free" else (2, 2, 3))):
                services.append(_service(len(services) + 1, account, accounts.index(account) + 1, now, rng))
        hour = now.replace(minute=0, second=0, microsecond=0)
        return cls(now, rng, accounts, tuple(services), tuple(sorted(_attacks(hour, rng))), rows_a_day)

    @property
    def held(self) -> Account:
        """The account under a legal hold."""
        return self.accounts[HELD]

    def past(self, days: float) -> datetime:
        """A moment of the last `days` days."""
        return self.now - timedelta(seconds=self.rng.uniform(0, days * 86400))

    def uuid(self) -> uuid.UUID:
        """The next identifier."""
        return uuid.UUID(int=self.rng.getrandbits(128), version=4)


def _account(number: int, now: datetime, rng: random.Random) -> Account:
    name = f"{_FIRST[number % 16]} {_LAST[(number * 7 + number // 16) % 16]}"
    known = number in PAYING or number in FORMER
    return Account(
        account_id=f"acc_{number + 1:04}",
        name=name,
        domain=f"{name.split()[1].lower()}-{number + 1}.example.com",
        tier="pro" if number in PAYING or number in GRANTED else "free",
        customer=f"cus_demo{number + 1:06}" if known else None,
        subscription=f"sub_demo{number + 1:06}" if number in PAYING else None,
        since=now - timedelta(days=rng.randrange(200, 900)),
    )


def _service(number: int, account: Account, page_id: int, now: datetime, rng: random.Random) -> Service:
    kind = rng.choice(_KINDS)
    name = rng.choice(("api", "www", "shop", "auth", "media", "status"))
    outages = tuple(outage for _ in range(rng.choice((0, 0, 1, 2, 3))) for outage in _fault(now, rng))
    if number == 3:
        outages += (Outage(now - timedelta(minutes=25), None, "major", "connection refused"),)
    place = {"http": f"https://{name}.{account.domain}/health", "tls": f"tls://{name}.{account.domain}:443"}
    return Service(
        service_id=number,
        account=account,
        page_id=page_id,
        kind=kind,
        name=f"{name}-{number}",
        url=place.get(kind, f"tcp://{name}.{account.domain}:5432"),
        base_ms=round(rng.lognormvariate(4.6, 0.6), 1),
        outages=outages,
        strained=_strained(outages, now, rng),
    )


def _attacks(hour: datetime, rng: random.Random) -> set[datetime]:
    """Hours of the last 180 days, some in a row; most from Friday to Sunday, when fewer people look."""
    found: set[datetime] = set()
    while len(found) < 240:
        ago, lasts = rng.randrange(1, 180 * 24), rng.choice((1, 2, 3, 5))
        if (hour - timedelta(hours=ago)).weekday() >= 4 or rng.random() < 0.05:
            found |= {hour - timedelta(hours=max(1, ago - n)) for n in range(lasts)}
    return found


def _fault(now: datetime, rng: random.Random) -> Iterator[Outage]:
    """Something that was released on a working day and fails at about the same time each day until it is mended."""
    start = now - timedelta(days=rng.uniform(1, 180))
    start -= timedelta(days=max(0, start.weekday() - 4))
    severity, cause = rng.choice(
        (("minor", "slow answers"), ("major", "timeout"), ("major", "status 503"), ("critical", "connection refused"))
    )
    while start < now - timedelta(hours=5):
        yield Outage(start, start + timedelta(minutes=rng.uniform(5, 240)), severity, cause)
        if rng.random() < 0.35:
            return
        start += timedelta(days=1, minutes=rng.gauss(0, 30))


def _strained(outages: Sequence[Outage], now: datetime, rng: random.Random) -> dict[date, float]:
    """Most failures announce themselves by slower answers the day before; not every slow day is followed by one."""
    days = [now.date() - timedelta(days=n) for n in range(182)]
    strained = {day: rng.uniform(1.1, 1.4) for day in days if rng.random() < 0.02}
    for outage in outages:
        if outage.cause != "connection refused":
            strained[outage.start.date() - timedelta(days=1)] = rng.uniform(1.3, 2.0)
    return strained
