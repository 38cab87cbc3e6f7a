"""The prober against real servers: what it finds, what bounds it, and where it never goes."""

import itertools
import os
import resource
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.clock import SystemClock
from shared.telemetry.probes import Finding, Manners, Verdict
from tests.telemetry.conftest import LIMITS, Run
from tests.telemetry.servers import FAR, Web, Zone, free_port, silent

UP, DOWN, UNKNOWN = Verdict.UP, Verdict.DOWN, Verdict.UNKNOWN


def one(found: list[Finding]) -> tuple[Verdict, int | None, str | None]:
    (finding,) = found
    return finding.verdict, finding.status, finding.error


@pytest.mark.parametrize(
    ("status", "verdict"), [(200, UP), (204, UP), (304, UP), (404, DOWN), (500, DOWN), (503, DOWN)]
)
def test_the_status_decides(run: Run, plain: Web, status: int, verdict: Verdict) -> None:
    words = None if verdict is UP else f"http: status {status}"
    assert one(run(("http", f"http://127.0.0.1:{plain.port}/status/{status}"))) == (verdict, status, words)


def test_a_finding_has_its_moment_its_phases_and_its_whole_time(run: Run, plain: Web) -> None:
    before = datetime.now(UTC)
    (finding,) = run(("http", f"http://plain.test:{plain.port}/slow"))
    assert before <= finding.at <= datetime.now(UTC)
    assert set(finding.phases) == {"dns", "connect", "first_byte"}
    assert finding.phases["first_byte"] >= 200
    assert finding.ms is not None
    assert finding.ms >= finding.phases["dns"] + finding.phases["first_byte"]


def test_tcp_connects_and_says_nothing(run: Run, plain: Web) -> None:
    with silent() as port:
        assert one(run(("tcp", f"tcp://127.0.0.1:{port}"))) == (UP, None, None)


def test_nobody_listening_is_refused(run: Run) -> None:
    found = run(*((kind, f"{kind}://127.0.0.1:{free_port()}") for kind in ("http", "tcp", "tls")))
    assert {(f.verdict, f.error) for f in found} == {(DOWN, "connect: refused")}


# --- TLS


def test_a_good_certificate_is_up_and_its_end_is_known(run: Run, secure: Web) -> None:
    found = run(("tls", f"tls://good.test:{secure.port}"), ("http", f"https://good.test:{secure.port}/"))
    assert [f.verdict for f in found] == [UP, UP]
    assert {f.tls_expires_at for f in found} == {FAR}
    assert found[1].status == 200
    assert f"good.test:{secure.port}" in secure.hosts


@pytest.mark.parametrize("kind", ["tls", "http"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expired", "tls: the certificate has expired"),
        ("early", "tls: the certificate is not yet valid"),
        ("self", "tls: the certificate is self-signed"),
        ("wrong", "tls: the certificate is for another name"),
    ],
)
def test_a_broken_certificate_is_down_in_words(run: Run, secure: Web, kind: str, name: str, words: str) -> None:
    scheme = "tls" if kind == "tls" else "https"
    assert one(run((kind, f"{scheme}://{name}.test:{secure.port}"))) == (DOWN, None, words)


def test_plain_text_on_a_tls_port_is_a_failed_handshake(run: Run, plain: Web) -> None:
    verdict, _, words = one(run(("tls", f"tls://127.0.0.1:{plain.port}")))
    assert verdict is DOWN
    assert words in ("tls: the handshake failed", "timeout: tls")


# --- bounds


def test_a_target_that_hangs_costs_its_phase_and_no_more(run: Run, plain: Web, zone: Zone) -> None:
    zone["mute.test"] = None
    with silent() as port:
        began = time.monotonic()
        found = run(
            ("http", f"http://127.0.0.1:{plain.port}/hang"),
            ("tls", f"tls://127.0.0.1:{port}"),
            ("http", f"http://127.0.0.1:{plain.port}/drip"),
            ("http", "http://mute.test/"),
        )
        assert time.monotonic() - began < LIMITS.total_s + 1.5
    assert [f.error for f in found[:3]] == ["timeout: the first byte", "timeout: tls", "timeout: the answer's end"]
    assert found[3].error in ("timeout: dns", "dns: timeout")
    assert {f.verdict for f in found} == {DOWN}


def test_an_endless_stream_is_cut_and_was_an_answer(run: Run, plain: Web) -> None:
    began, before = time.monotonic(), plain.sent
    assert one(run(("http", f"http://127.0.0.1:{plain.port}/stream"))) == (UP, 200, None)
    assert time.monotonic() - began < 1
    assert plain.sent - before < 16 << 20  # what the kernel's buffers took; not a stream


def test_endless_headers_are_cut(run: Run, plain: Web) -> None:
    verdict, _, words = one(run(("http", f"http://127.0.0.1:{plain.port}/headers")))
    assert (verdict, words) == (DOWN, "http: the headers are too large")


@pytest.mark.parametrize("path", ["garbage", "dead"])
def test_what_is_no_http_is_down(run: Run, plain: Web, path: str) -> None:
    verdict, status, words = one(run(("http", f"http://127.0.0.1:{plain.port}/{path}")))
    assert (verdict, status) == (DOWN, None)
    assert words in ("http: the answer is not HTTP", "http: no answer")


def test_what_is_not_reached_in_time_is_unknown(run: Run, plain: Web) -> None:
    urls = [("http", f"http://127.0.0.1:{plain.port}/slow")] * 12
    found = run(*urls, manners=Manners(at_once=2, per_host=2, per_address=2), within_s=0.3)
    said = {(f.verdict, f.error) for f in found}
    assert (UNKNOWN, "ours: not reached in time") in said
    assert not [f for f in found if f.verdict is DOWN]


def test_a_prober_that_is_asked_to_stop_stops_at_once(run: Run, plain: Web) -> None:
    began = time.monotonic()
    found = run(
        ("http", f"http://127.0.0.1:{plain.port}/hang"), stopping=lambda: time.monotonic() - began > 0.2, within_s=9
    )
    assert one(found) == (UNKNOWN, None, "ours: not reached in time")
    assert time.monotonic() - began < 0.9


def test_a_machine_that_stood_still_calls_no_timeout_down(run: Run, plain: Web) -> None:
    class Jumping(SystemClock):
        readings = itertools.count()

        def monotonic(self) -> float:
            return time.monotonic() + (60 if next(self.readings) > 12 else 0)

    found = run(("http", f"http://127.0.0.1:{plain.port}/hang"), clock=Jumping(), within_s=500)
    assert one(found) == (UNKNOWN, None, "ours: this machine stood still")


# --- manners


def test_no_host_and_no_address_is_met_by_more_than_its_share(run: Run, plain: Web) -> None:
    plain.most_open = 0
    urls = [("http", f"http://plain.test:{plain.port}/slow")] * 8
    found = run(*urls, manners=Manners(at_once=100, per_host=2, per_address=100))
    assert {f.verdict for f in found} == {UP}
    assert plain.most_open <= 2
    plain.most_open = 0
    run(*urls, manners=Manners(at_once=100, per_host=100, per_address=3))
    assert plain.most_open <= 3


def test_a_busy_host_holds_nobody_else_up(run: Run, plain: Web) -> None:
    urls = [("http", f"http://plain.test:{plain.port}/slow")] * 6 + [("http", f"http://127.0.0.1:{plain.port}/ok")]
    found = run(*urls, manners=Manners(at_once=4, per_host=1, per_address=10))
    assert max(found[:6], key=lambda f: f.at).at > found[6].at
    assert {f.verdict for f in found} == {UP}


def test_the_prober_says_who_it_is(run: Run, plain: Web) -> None:
    run(("http", f"http://127.0.0.1:{plain.port}/ok"))
    assert plain.agents == {"Groundskeeper (uptime check)"}


# --- where it never goes


def connections(*servers: Web) -> int:
    return sum(server.hits["connections"] for server in servers)


@pytest.mark.parametrize("kind", ["http", "tcp", "tls"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"])
def test_a_private_address_is_refused_without_a_packet(run: Run, plain: Web, kind: str, host: str) -> None:
    before = connections(plain)
    verdict, _, words = one(run((kind, f"{kind}://{host}:{plain.port}"), allow=()))
    assert verdict is UNKNOWN
    assert (words or "").startswith("refused: the address is ")
    assert connections(plain) == before


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
def test_a_name_that_means_a_private_address_is_refused_without_a_packet(
    run: Run, plain: Web, zone: Zone, addresses: list[str]
) -> None:
    zone[f"inside-{len(zone)}.test"] = addresses
    before = connections(plain)
    verdict, _, words = one(run(("http", f"http://inside-{len(zone) - 1}.test:{plain.port}/"), allow=()))
    assert verdict is DOWN
    assert (words or "").startswith("refused: the address is ")
    assert connections(plain) == before


def test_of_a_mixed_answer_only_the_reachable_address_is_met(run: Run, plain: Web, zone: Zone) -> None:
    zone["mixed.test"] = ["10.255.255.1", "127.0.0.1", "169.254.169.254"]
    assert one(run(("http", f"http://mixed.test:{plain.port}/ok"))) == (UP, 200, None)


def test_a_dead_address_is_followed_by_the_next_one(run: Run, plain: Web, zone: Zone) -> None:
    zone["two.test"] = ["127.0.0.2", "127.0.0.1"]
    allow = ("127.0.0.1/32", "127.0.0.2/32")
    assert one(run(("http", f"http://two.test:{plain.port}/ok"), allow=allow)) == (UP, 200, None)


@pytest.mark.parametrize(
    "where", ["http/127.0.0.2:{port}/ok", "http/[::1]:{port}/ok", "http/169.254.169.254/", "http/inner.test:{port}/"]
)
def test_a_redirect_to_a_private_address_is_refused(run: Run, plain: Web, zone: Zone, where: str) -> None:
    zone["inner.test"] = ["127.0.0.3"]
    before = connections(plain)
    url = f"http://127.0.0.1:{plain.port}/to/{where.format(port=plain.port)}"
    verdict, _, words = one(run(("http", url)))
    assert verdict is DOWN
    assert (words or "").startswith("refused: the address is ")
    assert connections(plain) - before == 1


def test_a_name_that_is_rebound_between_two_hops_is_judged_again(run: Run, plain: Web, zone: Zone) -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.4"], ["127.0.0.4"]])
    zone["rebound.test"] = lambda: next(answers)
    before = connections(plain)
    # TTL 0: the resolver's cache keeps nothing, so the second hop asks again and is told another address.
    url = f"http://rebound.test:{plain.port}/to/http/rebound.test:{plain.port}/ok"
    assert one(run(("http", url))) == (DOWN, None, "refused: the address is loopback")
    assert connections(plain) - before == 1


@pytest.mark.parametrize("where", ["file//etc/passwd", "ftp/127.0.0.1/", "gopher/127.0.0.1:{port}/_x"])
def test_a_redirect_to_another_protocol_is_refused(run: Run, plain: Web, where: str) -> None:
    before = connections(plain)
    verdict, _, words = one(run(("http", f"http://127.0.0.1:{plain.port}/to/{where.format(port=plain.port)}")))
    assert verdict is DOWN
    assert (words or "").startswith("redirect: ")
    assert connections(plain) - before == 1


def test_redirects_are_followed_up_to_the_limit_and_counted(run: Run, plain: Web) -> None:
    (five, six) = run(*(("http", f"http://127.0.0.1:{plain.port}/chain/{n}") for n in (5, 6)))
    assert (five.verdict, five.status, five.hops) == (UP, 200, 5)
    assert (six.verdict, six.error) == (DOWN, "redirect: more than 5")


def test_a_redirect_in_a_circle_ends_at_once(run: Run, plain: Web) -> None:
    plain.hits.clear()
    assert one(run(("http", f"http://plain.test:{plain.port}/loop"))) == (DOWN, None, "redirect: in a circle")
    assert plain.hits["/loop"] == 1


def test_a_proxy_of_the_environment_is_not_used(run: Run, plain: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as port:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert one(run(("http", f"http://plain.test:{plain.port}/ok"))) == (UP, 200, None)


def test_the_name_is_asked_for_in_host_and_sni_though_the_address_is_pinned(run: Run, secure: Web, zone: Zone) -> None:
    secure.hosts.clear()
    assert one(run(("http", f"https://good.test:{secure.port}/ok"))) == (UP, 200, None)
    assert secure.hosts == [f"good.test:{secure.port}"]


def test_without_a_socket_left_nothing_is_called_down(run: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with silent() as port:
        run(("tcp", f"tcp://127.0.0.1:{port}"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
        try:
            found = run(
                *[("http", f"http://127.0.0.1:{port}/")] * 250,
                manners=Manners(at_once=250, per_host=250, per_address=250),
            )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    said = {(f.verdict, f.error) for f in found}
    assert said == {(DOWN, "timeout: the first byte"), (UNKNOWN, "ours: no socket was left")}


def test_a_thousand_probes_of_every_sort_each_get_one_finding(run: Run, plain: Web, secure: Web, zone: Zone) -> None:
    zone["missing.test"] = []
    sorts = (
        ("http", f"http://plain.test:{plain.port}/ok"),
        ("http", f"http://nowhere.test:{plain.port}/"),
        ("http", "http://missing.test/"),
        ("tcp", f"tcp://127.0.0.1:{plain.port}"),
        ("tls", f"tls://good.test:{secure.port}"),
        ("http", f"http://127.0.0.1:{plain.port}/chain/2"),
        ("http", "http://10.0.0.1/"),
        ("tcp", f"tcp://127.0.0.1:{free_port()}"),
    )
    found = run(
        *(sorts[n % 8] for n in range(1000)), limits=replace(LIMITS, dns_s=5, tls_s=5, first_byte_s=5, total_s=10)
    )
    assert [f.key for f in found] == list(range(1000))
    by_sort = [{(f.verdict, f.error) for f in found[n::8]} for n in range(8)]
    assert by_sort == [
        {(UP, None)},
        {(DOWN, "dns: no such name")},
        {(DOWN, "dns: the name has no address")},
        {(UP, None)},
        {(UP, None)},
        {(UP, None)},
        {(UNKNOWN, "refused: the address is private")},
        {(DOWN, "connect: refused")},
    ]


def test_expiry_is_the_certificates_own(run: Run, secure: Web) -> None:
    (finding,) = run(("tls", f"tls://good.test:{secure.port}"))
    assert finding.tls_expires_at is not None
    assert finding.tls_expires_at - datetime.now(UTC) > timedelta(days=3000)
    assert finding.phases["tls"] > finding.phases["connect"]
