"""fetch_threat_intel from real HTTP to real rows: whole copies or none, nothing deleted, every entry accounted for."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from shared.call import of_slot
from shared.database import Database
from shared.errors import Outcome
from shared.feeds.samples import SAMPLES
from shared.manifest import FUNCTIONS, Cron
from shared.result import Result
from shared.secrets import LocalSecrets
from shared.settings import Settings
from shared.task import load
from tests.conftest import NOW, ManualClock, RunTask, as_role
from tests.feeds.servers import Page, Publisher, publisher
from tests.killing import killer

Rows = Callable[..., list[Any]]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FEEDS = {
    f["name"]: f
    for f in yaml.safe_load((FUNCTIONS / "fetch_threat_intel" / "task.yaml").read_text())["params"]["feeds"]
}
KEY = "a-key-of-this-test"


@pytest.fixture
def web() -> Iterator[Publisher]:
    with publisher() as server:
        yield server


Fetch = Callable[..., Result]


@pytest.fixture
def fetch(run_task: RunTask) -> Fetch:
    def run(*feeds: dict[str, Any], **params: Any) -> Result:
        return run_task("fetch_threat_intel", params={"feeds": list(feeds), **params})

    return run


def a_list(web: Publisher, *lines: str, path: str = "/list", **more: Any) -> dict[str, Any]:
    """A feed of plain lines at `path`, and the page behind it."""
    page = {k: more.pop(k) for k in ("etag", "key", "status", "cut", "zipped", "headers") if k in more}
    web.pages[path] = Page("".join(f"{line}\n" for line in lines).encode(), **page)
    return {"name": path[1:], "format": "list", "url": web.url + path, "confidence": 60, **more}


def listed(rows: Rows) -> dict[str, int]:
    return {r[0]: r[1] for r in rows("select canonical_key, confidence from threat_intelligence order by 1")}


# --- what comes in


def test_the_shipped_samples_load_and_every_entry_is_accounted_for(run_task: RunTask, rows: Rows) -> None:
    result = run_task("fetch_threat_intel", params={"source": "samples"})
    assert (result.outcome, result.error) == (Outcome.OK, None)
    counts = result.counts
    assert counts["entries"] == counts["accepted"] + counts["unfit"] + counts["allowed"]
    assert (counts["entries"], counts["unfit"]) == (23, 3)
    kept = listed(rows)
    assert len(kept) == counts["added"] == 19
    assert kept["cve:CVE-2021-44228"] == 98  # 95 and 50, as independent witnesses
    assert "ip_port:10.0.0.1:8080" not in kept
    reasons = rows("select feed, reason from groundskeeper.feed_reject order by 1")
    assert [tuple(r) for r in reasons] == [
        ("otx", "a type nobody here knows"),
        ("threatfox", "not a public address"),
        ("urlhaus", "not a domain name"),
    ]


def _public(sample: str) -> bytes:
    """A sample with addresses that are not for documentation alone."""
    for ours, public in (("192.0.2.", "45.61.49."), ("198.51.100.", "45.61.50."), ("203.0.113.", "45.61.51.")):
        sample = sample.replace(ours, public)
    return sample.replace("2001:db8:", "2a00:1450:").encode()


def test_every_publisher_over_http_with_its_key_in_its_header(
    fetch: Fetch, web: Publisher, settings: Settings, rows: Rows
) -> None:
    assert settings.secrets_folder is not None
    secrets = LocalSecrets(settings.secrets_folder)
    feeds = []
    for name, feed in FEEDS.items():
        if "secret" in feed:
            secrets.add(feed["secret"], KEY)
        needs = (feed["header"], KEY) if "header" in feed else None
        web.pages[f"/{name}"] = Page(_public(SAMPLES[name]), key=needs, zipped=name == "kev")
        feeds.append({**feed, "url": f"{web.url}/{name}"})
    result = fetch(*feeds)
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert {h.path.partition("?")[0][1:] for h in web.hits} == set(FEEDS)
    kept = listed(rows)
    assert "ip_port:45.61.49.10:443" in kept
    assert "cidr:45.61.49.0/24" in kept
    assert KEY not in json.dumps([list(map(str, r)) for r in rows("select * from groundskeeper.feed_state")])


def test_two_sources_make_one_row_that_names_both(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    one = a_list(web, "Evil[.]Example.com", path="/one")
    two = a_list(web, "evil.example.com", path="/two", confidence=50)
    assert fetch(one, two).outcome is Outcome.OK
    ((confidence, base, sources),) = rows("select confidence, base_confidence, sources from threat_intelligence")
    assert (confidence, base) == (80, 80)  # 1 - 0.4 * 0.5
    assert [(s["source"], s["confidence"]) for s in sources] == [("one", 60), ("two", 50)]
    assert all(datetime.fromisoformat(s["seen_at"]) == NOW for s in sources)


def test_a_copy_that_repeats_itself_is_one_row_of_the_surest(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    web.pages["/csv"] = Page(b"ip,score\n" + b"".join(b"45.61.49.78,%d\n" % (n % 100) for n in range(1000)))
    feed = {"name": "csv", "format": "csv", "url": f"{web.url}/csv", "confidence": 1}
    result = fetch({**feed, "columns": {"text": "ip", "confidence": "score"}})
    assert (result.counts["accepted"], result.counts["added"]) == (1000, 1)
    assert listed(rows) == {"ipv4:45.61.49.78": 99}


def test_legacy_rows_and_foreign_ones_are_left_as_they_are(
    fetch: Fetch, web: Publisher, rows: Rows, db: Database
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("""insert into threat_intelligence (indicator_type, indicator, confidence, created_at)
                    values ('domain', 'evil.example.com', 7, :now), ('domain', 'old.example.com', null, :now)"""),
            {"now": NOW},
        )
    fetch(a_list(web, "evil.example.com"))
    found = rows("select canonical_key, confidence from threat_intelligence where canonical_key is null order by id")
    assert [tuple(r) for r in found] == [(None, 7), (None, None)]
    assert len(rows("select 1 from threat_intelligence")) == 3


# --- again


def test_an_unchanged_feed_is_not_sent_again_and_a_day_later_taken_whole(
    fetch: Fetch, web: Publisher, rows: Rows, clock: ManualClock
) -> None:
    feed = a_list(web, "evil.example.com", etag='"1"')
    fetch(feed)
    clock.advance(HOUR)
    counts = fetch(feed).counts
    assert (counts["unchanged"], counts["written"]) == (1, 0)
    clock.advance(DAY)
    assert fetch(feed).counts["written"] == 1
    assert [h.headers.get("If-None-Match") for h in web.hits] == [None, '"1"', None]
    ((seen,),) = rows("select last_seen from threat_intelligence")
    assert seen == clock.now()


def test_the_same_again_writes_no_row(fetch: Fetch, web: Publisher, clock: ManualClock) -> None:
    feed = a_list(web, "evil.example.com", "1.2.3.4")
    assert fetch(feed).counts["written"] == 2
    clock.advance(HOUR)
    web.pages["/list"].body += b"# another copy\n"
    assert fetch(feed).counts["written"] == 0


def test_a_feed_is_asked_no_more_often_than_it_wishes(fetch: Fetch, web: Publisher, clock: ManualClock) -> None:
    feed = a_list(web, "evil.example.com", every_h=6)
    fetch(feed)
    clock.advance(5 * HOUR)
    assert fetch(feed).counts["not_due"] == 1
    clock.advance(HOUR)
    fetch(feed)
    assert len(web.hits) == 2


def test_pages_are_followed_from_the_last_time_on(fetch: Fetch, web: Publisher, clock: ManualClock, rows: Rows) -> None:
    pulse = json.loads(SAMPLES["otx"])["results"][0]
    first = {"results": [pulse], "next": f"{web.url}/otx2"}
    second = {"results": [{**pulse, "indicators": [{"type": "IPv4", "indicator": "1.2.3.4"}]}], "next": None}
    web.pages["/otx"], web.pages["/otx2"] = Page(json.dumps(first).encode()), Page(json.dumps(second).encode())
    feed = {"name": "otx", "format": "otx", "url": f"{web.url}/otx", "confidence": 50, "pages": True}
    assert fetch(feed).outcome is Outcome.OK
    assert "ipv4:1.2.3.4" in listed(rows)
    clock.advance(HOUR)
    fetch(feed)
    assert "modified_since=2026-06-15T11%3A00" in web.hits[2].path
    web.pages["/otx"] = Page(json.dumps({**first, "next": "http://127.0.0.2:1/steal"}).encode())
    clock.advance(HOUR)
    assert "somewhere else" in (fetch(feed).error or "")


def test_a_feed_whose_indicator_somebody_adds_meanwhile_is_taken_whole_the_next_time(
    fetch: Fetch, web: Publisher, rows: Rows, db: Database, clock: ManualClock
) -> None:
    feed = a_list(web, "evil.example.com", "worse.example.com")
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as connection:
            connection.execute(
                text("""insert into threat_intelligence (canonical_key, indicator_type, indicator, created_at)
                        values ('domain:worse.example.com', 'domain', 'worse.example.com', :now)"""),
                {"now": NOW},
            )
            started = pool.submit(fetch, feed)
            while not rows(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%merge into threat%'"
            ):
                time.sleep(0.02)
        result = started.result()
    assert (result.outcome, "somebody else added" in (result.error or "")) == (Outcome.PARTIAL, True)
    assert list(listed(rows)) == ["domain:worse.example.com"]
    clock.advance(HOUR)
    assert fetch(feed).counts["written"] == 2
    assert len(listed(rows)) == 2


# --- age


def test_what_nobody_lists_any_more_sinks_expires_and_is_never_deleted(
    fetch: Fetch, web: Publisher, clock: ManualClock, rows: Rows
) -> None:
    feed, other = a_list(web, "1.2.3.4"), a_list(web, "5.6.7.8", path="/other")
    fetch(feed)
    assert rows("select expires_at from threat_intelligence")[0][0] == NOW + 30 * DAY
    scores = []
    for _ in range(5):
        clock.advance(8 * DAY)
        web.pages["/other"].body += b"#\n"
        fetch(other)
        scores.append(listed(rows)["ipv4:1.2.3.4"])
    assert scores == [60, 43, 22, 0, 0]  # 60 * (1 - (days / 30) ^ 2), by steps of five
    assert fetch(feed).counts["written"] == 1  # seen again: as sure as ever
    assert listed(rows)["ipv4:1.2.3.4"] == 60


# --- what must not come in


def test_a_shrunken_copy_is_red_and_believed_only_when_it_stays_so(
    fetch: Fetch, web: Publisher, clock: ManualClock, rows: Rows
) -> None:
    fetch(a_list(web, *(f"e{n}.example.com" for n in range(10))))
    clock.advance(HOUR)
    feed = a_list(web, *(f"e{n}.example.com" for n in range(4)), "new.example.com")
    assert fetch(feed).outcome is Outcome.OK  # exactly half is believed
    for _ in range(2):
        clock.advance(HOUR)
        result = fetch(a_list(web, "only.example.com"))
        assert result.outcome is Outcome.PARTIAL
        assert "shrank from 5 indicators to 1" in (result.error or "")
    assert len(listed(rows)) == 11
    clock.advance(DAY)
    assert fetch(a_list(web, "only.example.com")).outcome is Outcome.OK
    assert len(listed(rows)) == 12


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"status": 500}, "answered 500"),
        ({"status": 403}, "is the key right"),
        ({"cut": 3}, "broke off|broke"),
        ({"status": 302, "headers": {"Location": "/list"}}, "redirects more than"),
        ({"status": 302, "headers": {"Location": "ftp://x/"}}, "another protocol"),
    ],
)
def test_a_feed_that_fails_is_red_hides_no_other_and_wipes_nothing(
    fetch: Fetch, web: Publisher, clock: ManualClock, rows: Rows, page: dict[str, Any], said: str
) -> None:
    fetch(a_list(web, "evil.example.com", "worse.example.com"))
    clock.advance(HOUR)
    bad, fine = a_list(web, "evil.example.com", **page), a_list(web, "fine.example.com", path="/fine")
    result = fetch(bad, fine)
    assert result.outcome is Outcome.PARTIAL
    assert result.error is not None
    assert "list: " in result.error
    assert re.search(said, result.error)
    assert set(listed(rows)) == {"domain:evil.example.com", "domain:worse.example.com", "domain:fine.example.com"}
    assert rows("select failures from groundskeeper.feed_state where feed = 'list'") == [(1,)]


def test_an_empty_copy_a_foreign_one_and_a_huge_one_are_refused(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    empty = a_list(web, "# nothing", path="/empty")
    page = a_list(web, *("<html>", "<p>Maintenance</p>") * 20, "evil.example.com", path="/page")
    huge = a_list(web, *("evil.example.com",) * 100_000, path="/huge", zipped=True)
    result = fetch(empty, page, huge, caps={"mb": 1, "total_s": 60, "answer_s": 5})
    assert result.outcome is Outcome.PARTIAL
    assert "empty: has no indicator at all" in (result.error or "")
    assert "page: 40 of 41 entries are unfit" in (result.error or "")
    assert "huge: is larger than 1 MB" in (result.error or "")
    assert listed(rows) == {}


def test_ones_own_names_and_major_infrastructure_stay_out_with_the_reason(
    fetch: Fetch, web: Publisher, rows: Rows
) -> None:
    feed = a_list(web, "www.ours.example", "8.8.8.8", "github.com", "https://github.com/x/bad.exe", "evil.example.com")
    allow = {"own": ["ours.example"], "domains": ["github.com"], "networks": ["8.8.8.0/24"]}
    counts = fetch(feed, allow=allow).counts
    assert (counts["allowed"], counts["accepted"]) == (3, 2)
    assert set(listed(rows)) == {"url:https://github.com/x/bad.exe", "domain:evil.example.com"}
    assert len(rows("select 1 from groundskeeper.feed_reject where reason = 'on the allow-list'")) == 3


def test_a_key_never_follows_a_redirect_to_another_host(fetch: Fetch, web: Publisher, settings: Settings) -> None:
    assert settings.secrets_folder is not None
    LocalSecrets(settings.secrets_folder).add("otx-key", KEY)
    with publisher() as elsewhere:
        elsewhere.pages["/list"] = Page(b"evil.example.com\n")
        feed = a_list(web, status=302, headers={"Location": f"{elsewhere.url}/list"}, secret="otx-key", header="Key")
        assert fetch(feed).outcome is Outcome.OK
        assert web.hits[0].headers.get("Key") == KEY
        assert elsewhere.hits[0].headers.get("Key") is None


def test_without_a_key_the_others_are_taken_and_the_feed_is_named(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    result = fetch(a_list(web, "evil.example.com"), {**FEEDS["otx"], "url": f"{web.url}/otx"})
    assert result.outcome is Outcome.UNAVAILABLE
    assert "otx (secret otx-key)" in (result.error or "")
    assert len(listed(rows)) == 1
    assert fetch({**FEEDS["otx"]}, without="otx").outcome is Outcome.OK


def test_a_feed_that_was_good_too_long_ago_is_named(fetch: Fetch, web: Publisher, clock: ManualClock) -> None:
    feed = a_list(web, "evil.example.com", every_h=100)
    assert fetch(feed).counts["list.age_h"] == 0
    clock.advance(49 * HOUR)
    result = fetch(feed)
    assert result.counts["list.age_h"] == 49
    assert "older than 48 hours" in (result.error or "")


def test_rows_postgresql_could_not_hold_harm_nobody(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    entry = {"ioc_type": "domain", "malware_printable": "\ud800\x00\\N\t", "first_seen_utc": "0000-99-99 00:00:00"}
    document = {"1": [{**entry, "ioc_value": "evil.example.com"}], "2": [{**entry, "ioc_value": "\ud800.com"}]}
    web.pages["/fox"] = Page(json.dumps(document).encode())
    feed = {"name": "fox", "format": "threatfox", "url": f"{web.url}/fox", "confidence": 5}
    result = fetch(feed, guard={"shrink_share": 0.5, "shrink_h": 24, "bad_share": 0.5, "refresh_h": 24})
    assert (result.outcome, result.error) == (Outcome.OK, None)
    assert listed(rows) == {"domain:evil.example.com": 5}


def test_a_moment_to_come_is_now(fetch: Fetch, web: Publisher, rows: Rows) -> None:
    web.pages["/csv"] = Page(b"ip,at\n45.61.49.78,2999-01-01 00:00:00\n")
    feed = {
        "name": "csv",
        "format": "csv",
        "url": f"{web.url}/csv",
        "confidence": 5,
        "columns": {"text": "ip", "first_seen": "at"},
    }
    fetch(feed)
    assert rows("select first_seen, last_seen from threat_intelligence") == [(NOW, NOW)]


# --- the protocol


def test_a_slot_delivered_twice_is_taken_once(settings: Settings, clock: ManualClock, rows: Rows) -> None:
    entry = load(FUNCTIONS / "fetch_threat_intel")
    samples = replace(settings, environ={**settings.environ, "THREAT_FEEDS": "samples"})
    runner = entry.runner(as_role(samples, "fetch-threat-intel"), clock)
    slot = of_slot(Cron("22 * * * *"), NOW)
    try:
        assert [runner.execute(slot).outcome for _ in range(2)] == [Outcome.OK, Outcome.SKIPPED]
    finally:
        runner.close()


SLOT = "2026-06-15T11:37:00Z"
ENDING = """
    delete from groundskeeper.task_run;
    delete from groundskeeper.feed_state;
    delete from groundskeeper.feed_reject;
    delete from groundskeeper.scan_state;
    delete from threat_intelligence
"""


def _killed(settings: Settings, rows: Rows, db: Database, *, every: int) -> None:
    environ = {**settings.environ, "THREAT_FEEDS": "samples"}
    with killer(environ, FUNCTIONS / "fetch_threat_intel") as kill:
        undisturbed = kill.run(slot=SLOT, now=SLOT)
        assert undisturbed.outcome == "ok", undisturbed.error
        wanted = listed(rows)
        assert len(wanted) == 19
        for step in range(every, undisturbed.steps, every):
            _forget(db)
            assert kill.run(slot=SLOT, step=step, now=SLOT).killed
            rows("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s' returning 1")
            assert kill.run(slot=SLOT, now=SLOT).outcome in ("ok", "skipped")
            assert listed(rows) == wanted, step


def _forget(db: Database) -> None:
    with db.transaction() as connection:
        for statement in ENDING.split(";"):
            connection.execute(text(statement))


def test_killed_at_some_steps_the_next_run_ends_with_the_same_rows(
    settings: Settings, rows: Rows, db: Database
) -> None:
    _killed(settings, rows, db, every=37)


@pytest.mark.full
def test_killed_at_many_steps_the_next_run_ends_with_the_same_rows(
    settings: Settings, rows: Rows, db: Database
) -> None:
    _killed(settings, rows, db, every=3)
