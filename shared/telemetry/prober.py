"""Probe many targets at once: resolve, judge, pin, connect; every redirect again; every phase bounded.

Single-threaded around one CurlMulti. A probe is always in one place: waiting, asking DNS, or under way.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import pycurl

from shared.addresses import Forbidden, Pin, Reach, pin
from shared.clock import Clock
from shared.telemetry.probes import Finding, Limits, Manners, Probe, Verdict, words_of
from shared.telemetry.resolver import Answer, Resolver
from shared.telemetry.targets import BadTarget, Target, redirected
from shared.telemetry.transfer import Transfer

_SWEEP_S = 0.2  # how exactly a phase's limit is kept
_STALL_S = 1.0  # a loop takes milliseconds; a throttled instance, seconds
_REDIRECTS = (301, 302, 303, 307, 308)


class _Flight:
    """A probe under way: where it has been and where it goes."""

    __slots__ = (
        "at",
        "dns_ms",
        "hop_began",
        "hops",
        "host",
        "key",
        "pins",
        "seen",
        "spent_ms",
        "stalled",
        "target",
        "transfer",
    )

    def __init__(self, probe: Probe, at: datetime, began: float) -> None:
        self.key, self.target = probe.key, probe.target
        self.host = probe.target.host
        self.at, self.hop_began = at, began
        self.hops = 0
        self.spent_ms = 0.0
        self.dns_ms = 0.0
        self.stalled = False
        self.seen = {probe.target.url}
        self.pins: list[Pin] = []
        self.transfer: Transfer | None = None


class Prober:
    """Probes within `limits` and `manners`, reaching only what `reach` allows. Close it, or use it in `with`."""

    def __init__(
        self, *, limits: Limits, manners: Manners, reach: Reach, resolver: Resolver, clock: Clock, ca_file: str
    ) -> None:
        """`resolver` is the caller's to close. `ca_file`: the certificate authorities to trust, PEM."""
        self._limits, self._manners, self._reach = limits, manners, reach
        self._resolver, self._clock = resolver, clock
        self._ca_file = ca_file
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 1)
        self._idle: list[Transfer] = []
        self._waiting: deque[Probe] = deque()
        self._parked: dict[str, deque[Probe]] = {}  # by host, while the host is busy
        self._queued: dict[str, deque[_Flight]] = {}  # by address, while the address is busy
        self._busy: dict[str, int] = {}  # probes by host, hops by address
        self._asking: dict[int, _Flight] = {}
        self._flying: set[_Flight] = set()
        self._tokens = 0
        self._under_way = 0
        self._done: list[Finding] = []

    def probe(
        self, probes: Iterable[Probe], *, until: float, stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[Finding]:
        """A finding for each probe, as they come.

        At `until` (monotonic), or when `stopping` says so, what is not done is `unknown`.
        """
        self._waiting.extend(probes)
        swept = before = self._clock.monotonic()
        while self._waiting or self._parked or self._under_way:
            now = self._clock.monotonic()
            if now - before > _STALL_S:
                self._stalled()
            before = now
            if now >= until or stopping():
                self._abandon()
            self._start(now)
            for answer in self._resolver.answered():
                self._answered(answer)
            self._perform()
            if now - swept >= _SWEEP_S:
                swept = now
                self._sweep(now)
            yield from self._done
            self._done.clear()
            if self._flying or self._asking:
                self._multi.select(0.005 if self._asking else 0.05)
        yield from self._done
        self._done.clear()

    # --- a probe's way

    def _start(self, now: float) -> None:
        while self._waiting and self._under_way < self._manners.at_once:
            probe = self._waiting.popleft()
            host = probe.target.host
            if self._busy.get(host, 0) >= self._manners.per_host:
                self._parked.setdefault(host, deque()).append(probe)
                continue
            self._busy[host] = self._busy.get(host, 0) + 1
            self._under_way += 1
            self._hop(_Flight(probe, self._clock.now(), now), probe.target)

    def _hop(self, flight: _Flight, target: Target) -> None:
        """Set out for `target`: its address is judged anew, also where the host is the one before."""
        flight.target, flight.hop_began, flight.dns_ms = target, self._clock.monotonic(), 0.0
        if target.literal:
            try:
                flight.pins = list(pin([target.host], self._reach))
            except Forbidden as refused:
                self._end(flight, Verdict.DOWN if flight.hops else Verdict.UNKNOWN, str(refused))
                return
            self._connect(flight)
            return
        self._tokens += 1
        self._asking[self._tokens] = flight
        self._resolver.ask(target.host, self._tokens)

    def _answered(self, answer: Answer) -> None:
        flight = self._asking.pop(answer.token, None)
        if flight is None:  # it was abandoned meanwhile
            return
        flight.dns_ms = (self._clock.monotonic() - flight.hop_began) * 1000
        flight.spent_ms += flight.dns_ms
        if answer.error is not None:
            self._end(flight, Verdict.DOWN, answer.error)
            return
        flight.pins = list(answer.pins)
        self._connect(flight)

    def _connect(self, flight: _Flight) -> None:
        """Go to the next pin, or wait until its address is free."""
        address = flight.pins[0].text
        if self._busy.get(address, 0) >= self._manners.per_address:
            self._queued.setdefault(address, deque()).append(flight)
            return
        left = self._limits.total_s - flight.spent_ms / 1000
        if left <= 0:
            self._end(flight, Verdict.DOWN, "timeout: the whole probe")
            return
        self._busy[address] = self._busy.get(address, 0) + 1
        transfer = self._idle.pop() if self._idle else Transfer(self._limits, ca_file=self._ca_file)
        transfer.aim(flight.target, flight.pins[0], left_s=left)
        transfer.flight = flight
        flight.transfer, flight.hop_began = transfer, self._clock.monotonic()
        self._flying.add(flight)
        self._multi.add_handle(transfer.handle)

    def _perform(self) -> None:
        self._multi.perform()
        while True:
            more, well, failed = self._multi.info_read()
            for handle in well:
                self._landed(handle.owner.flight, 0, "")
            for handle, code, message in failed:
                self._landed(handle.owner.flight, code, message)
            if not more:
                return

    def _landed(self, flight: _Flight, code: int, message: str) -> None:
        transfer = flight.transfer
        assert transfer is not None
        cut = code == pycurl.E_WRITE_ERROR and transfer.cut
        if code == pycurl.E_OPERATION_TIMEDOUT:
            self._fail(flight, self._slow_phase(transfer.phases(), flight.target))
        elif code == pycurl.E_COULDNT_CONNECT and len(flight.pins) > 1:
            flight.spent_ms += transfer.total_ms()
            self._free(flight)
            flight.pins.pop(0)
            self._connect(flight)
        elif code == pycurl.E_COULDNT_CONNECT:
            ours, words = transfer.refusal()
            self._fail(flight, words, Verdict.UNKNOWN if ours else Verdict.DOWN)
        elif code and not cut:
            self._fail(flight, words_of(code, message))
        elif flight.target.kind == "http" and transfer.status in _REDIRECTS and transfer.location:
            self._redirect(flight, transfer.location)
        else:
            self._arrived(flight, transfer)

    def _redirect(self, flight: _Flight, location: str) -> None:
        assert flight.transfer is not None
        flight.spent_ms += flight.transfer.total_ms()
        self._free(flight)
        flight.hops += 1
        try:
            target = redirected(location)
        except BadTarget as bad:
            self._end(flight, Verdict.DOWN, f"redirect: {bad}")
            return
        if target.url in flight.seen:
            self._end(flight, Verdict.DOWN, "redirect: in a circle")
        elif flight.hops > self._limits.redirects:
            self._end(flight, Verdict.DOWN, f"redirect: more than {self._limits.redirects}")
        else:
            flight.seen.add(target.url)
            self._hop(flight, target)

    def _arrived(self, flight: _Flight, transfer: Transfer) -> None:
        status = transfer.status if flight.target.kind == "http" else None
        well = status is None or 200 <= status < 400
        if flight.target.kind == "http" and status is None:
            self._fail(flight, "http: no answer")
            return
        flight.spent_ms += transfer.total_ms()
        phases = {"dns": flight.dns_ms, **transfer.phases()} if flight.dns_ms else transfer.phases()
        expires = transfer.tls_expires_at() if "tls" in phases else None
        self._free(flight)
        self._end(
            flight,
            Verdict.UP if well else Verdict.DOWN,
            None if well else f"http: status {status}",
            status=status,
            phases=phases,
            expires=expires,
        )

    def _fail(self, flight: _Flight, error: str, verdict: Verdict = Verdict.DOWN) -> None:
        assert flight.transfer is not None
        flight.spent_ms += flight.transfer.total_ms()
        self._free(flight)
        self._end(flight, verdict, error)

    def _free(self, flight: _Flight) -> None:
        """Take the handle back, and let the next one go to its address."""
        transfer, address = flight.transfer, flight.pins[0].text
        assert transfer is not None
        self._multi.remove_handle(transfer.handle)
        self._flying.discard(flight)
        flight.transfer = transfer.flight = None
        self._idle.append(transfer)
        self._release(address)
        if (queued := self._queued.get(address)) is not None:
            following = queued.popleft()
            if not queued:
                del self._queued[address]
            self._connect(following)

    def _end(
        self,
        flight: _Flight,
        verdict: Verdict,
        error: str | None,
        *,
        status: int | None = None,
        phases: dict[str, float] | None = None,
        expires: datetime | None = None,
    ) -> None:
        if flight.stalled and verdict is Verdict.DOWN and error is not None and error.startswith("timeout"):
            verdict, error = Verdict.UNKNOWN, "ours: this machine stood still"
        ms = None if verdict is Verdict.UNKNOWN else flight.spent_ms
        self._done.append(
            Finding(flight.key, flight.at, verdict, status, error, ms, phases or {}, flight.hops, expires)
        )
        self._under_way -= 1
        self._release(flight.host)
        if (parked := self._parked.get(flight.host)) is not None:
            self._waiting.appendleft(parked.popleft())
            if not parked:
                del self._parked[flight.host]

    def _release(self, name: str) -> None:
        self._busy[name] -= 1
        if not self._busy[name]:
            del self._busy[name]

    # --- time

    def _sweep(self, now: float) -> None:
        """End what is beyond its phase's limit; curl itself knows only one for connecting and one for all."""
        for token, flight in list(self._asking.items()):
            if now - flight.hop_began > self._limits.dns_s:
                del self._asking[token]
                self._end(flight, Verdict.DOWN, "timeout: dns")
        for flight in list(self._flying):
            if flight.transfer is not None:
                elapsed = now - flight.hop_began
                flight.transfer.look(elapsed * 1000)
                phases = flight.transfer.phases()
                if elapsed > self._allowed_s(phases, flight.target):
                    self._fail(flight, self._slow_phase(phases, flight.target))

    def _stalled(self) -> None:
        """We were not running: a timeout of what was under way meanwhile may be ours."""
        queued = (flight for flights in self._queued.values() for flight in flights)
        for flight in (*self._asking.values(), *self._flying, *queued):
            flight.stalled = True

    def _allowed_s(self, phases: dict[str, float], target: Target) -> float:
        """Seconds into the hop at which the phase it is in must have ended."""
        limits = self._limits
        if "connect" not in phases:
            return limits.connect_s
        if target.url.startswith("https:") and "tls" not in phases:
            return phases["connect"] / 1000 + limits.tls_s
        if "first_byte" not in phases:
            return max(phases.values()) / 1000 + limits.first_byte_s
        return limits.total_s

    def _slow_phase(self, phases: dict[str, float], target: Target) -> str:
        if "connect" not in phases:
            return "timeout: connect"
        if target.url.startswith("https:") and "tls" not in phases:
            return "timeout: tls"
        return "timeout: the answer's end" if "first_byte" in phases else "timeout: the first byte"

    def _abandon(self) -> None:
        """The time is up: what was not finished says nothing about its target."""
        late = "ours: not reached in time"
        for probe in [*self._waiting, *(p for parked in self._parked.values() for p in parked)]:
            self._done.append(Finding(probe.key, self._clock.now(), Verdict.UNKNOWN, error=late))
        self._waiting.clear()
        self._parked.clear()
        queued = [flight for flights in self._queued.values() for flight in flights]
        self._queued.clear()
        for flight in [*self._asking.values(), *queued]:
            self._end(flight, Verdict.UNKNOWN, late)
        self._asking.clear()
        for flight in list(self._flying):
            self._free(flight)
            self._end(flight, Verdict.UNKNOWN, late)

    def close(self) -> None:
        """Free every handle."""
        for transfer in self._idle:
            transfer.close()
        self._multi.close()

    def __enter__(self) -> "Prober":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
