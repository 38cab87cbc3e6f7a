"""Servers for a module's tests, and a prober that may reach them and nothing else of this machine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest

from shared.addresses import Reach
from shared.clock import Clock, SystemClock
from shared.telemetry.prober import Prober
from shared.telemetry.probes import Finding, Limits, Manners, Probe
from shared.telemetry.resolver import Resolver
from shared.telemetry.targets import parse
from tests.conftest import NOW
from tests.telemetry.servers import Authority, Web, Zone, names, web

LIMITS = Limits(dns_s=1, connect_s=1, tls_s=1, first_byte_s=1, total_s=3, body_bytes=65536, redirects=5)
MANNERS = Manners(at_once=100, per_host=50, per_address=100)


@pytest.fixture(scope="module")
def plain() -> Iterator[Web]:
    with web() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[Web]:
    contexts = {
        "good.test": authority.context("good.test"),
        "expired.test": authority.context("expired.test", end=NOW - timedelta(days=900)),
        "early.test": authority.context("early.test", start=NOW + timedelta(days=5000)),
        "self.test": authority.context("self.test", own=True),
        "wrong.test": authority.context("other.test"),
    }
    with web(contexts) as server:
        yield server


@pytest.fixture(scope="module")
def zone() -> Zone:
    """The names of a module's tests; each may add its own."""
    return {f"{name}.test": ["127.0.0.1"] for name in ("good", "expired", "early", "self", "wrong", "plain")}


@pytest.fixture(scope="module")
def dns(zone: Zone) -> Iterator[int]:
    with names(zone) as port:
        yield port


Run = Callable[..., list[Finding]]


@pytest.fixture
def run(dns: int, authority: Authority) -> Iterator[Run]:
    """Probe (kind, url) pairs; the findings in their order."""
    with ExitStack() as stack:

        def probe(
            *targets: tuple[str, str],
            allow: tuple[str, ...] = ("127.0.0.1/32",),
            limits: Limits = LIMITS,
            manners: Manners = MANNERS,
            clock: Clock | None = None,
            within_s: float = 20,
            stopping: Callable[[], bool] = lambda: False,
        ) -> list[Finding]:
            ticking: Any = clock or SystemClock()
            reach = Reach.of(allow=allow)
            resolver = stack.enter_context(Resolver(reach, timeout_s=limits.dns_s, servers=["127.0.0.1"], port=dns))
            prober = stack.enter_context(
                Prober(
                    limits=limits,
                    manners=manners,
                    reach=reach,
                    resolver=resolver,
                    clock=ticking,
                    ca_file=str(authority.file),
                )
            )
            probes = [Probe(number, parse(kind, url)) for number, (kind, url) in enumerate(targets)]
            found = list(prober.probe(probes, until=ticking.monotonic() + within_s, stopping=stopping))
            assert len(found) == len(probes)
            return sorted(found, key=lambda finding: finding.key)

        yield probe
