"""scan_dark_web against services that answer as documented: only what is new is told, and no address is kept."""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.darkweb.findings import address_hash
from shared.darkweb.samples import ANSWERS
from shared.database import Database
from shared.errors import Outcome
from shared.result import Result
from shared.secrets import LocalSecrets
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.feeds.servers import Page, Publisher, publisher

Rows = Callable[..., list[Any]]
Scan = Callable[..., Result]
API_KEY, HASH_KEY = "an-api-key-of-this-test", "a-hash-key-of-this-test"
ADDRESS = "info@ours.example"
MANNERS = {"per_minute": 600, "answer_s": 5, "mb": 1}


@pytest.fixture
def web() -> Iterator[Publisher]:
    with publisher() as server:
        needs = ("hibp-api-key", API_KEY)
        server.pages = {path: Page(body, key=None if "domain" not in path else needs) for path, body in ANSWERS.items()}
        yield server


@pytest.fixture
def keyed(settings: Settings) -> None:
    assert settings.secrets_folder is not None
    LocalSecrets(settings.secrets_folder).add("hibp-key", API_KEY)
    LocalSecrets(settings.secrets_folder).add("dark-web-hash-key", HASH_KEY)


@pytest.fixture
def scan(run_task: RunTask, web: Publisher) -> Scan:
    given = {
        "hibp": web.url,
        "ahmia": web.url,
        "domains": "ours.example",
        "terms": "Groundskeeper Demo",
        "manners": MANNERS,
    }
    return lambda **more: run_task("scan_dark_web", params={**given, **more})


@pytest.fixture
def customers(db: Database) -> list[str]:
    """Three customers; the address of each."""
    addresses = [f"Customer{n}@example.com" for n in range(3)]
    with db.transaction() as connection:
        connection.execute(
            text("""insert into user_profile (account_id, firebase_uid, email, created_at, updated_at)
                    values (:id, :id, :email, :now, :now)"""),
            [{"id": f"acc_{n}", "email": a, "now": NOW} for n, a in enumerate(addresses)],
        )
    return addresses


def _range(web: Publisher, address: str, *names: str, **page: Any) -> str:
    """Serve the range of `address`'s hash, with a stranger in it; its path."""
    digest = hashlib.sha1(address.lower().encode()).hexdigest().upper()
    entries = [{"hashSuffix": "0" * 34, "websites": ["Stranger"]}, {"hashSuffix": digest[6:], "websites": list(names)}]
    path = f"/breachedaccount/range/{digest[:6]}"
    web.pages[path] = Page(json.dumps(entries).encode(), key=("hibp-api-key", API_KEY), **page)
    return path


def found(rows: Rows) -> set[str]:
    return {r[0] for r in rows("select canonical_key from threat_intelligence")}


def told(rows: Rows) -> list[dict[str, Any]]:
    return [r[0] for r in rows("select payload from groundskeeper.outbox order by created_at, id")]


def test_breaches_exposures_and_mentions_become_rows_and_events(scan: Scan, rows: Rows, keyed: None) -> None:
    result = scan()
    assert (result.outcome, result.error) == (Outcome.OK, None)
    hashed = address_hash(ADDRESS, HASH_KEY)
    assert found(rows) == {
        "breach:SampleBreach",
        f"exposure:{hashed}:SampleBreach",
        f"mention:groundskeeper demo at http://{'a' * 56}.onion/list",
    }
    assert (result.counts["found"], result.counts["new"], result.counts["breaches_checked"]) == (3, 3, 2)
    assert {e["type"] for e in told(rows)} == {
        "security.breach_found",
        "security.exposure_found",
        "security.mention_found",
    }


def test_only_what_is_new_is_told(scan: Scan, rows: Rows, keyed: None, clock: ManualClock, web: Publisher) -> None:
    scan()
    clock.advance(timedelta(days=1))
    again = scan()
    assert (again.counts["found"], again.counts["new"]) == (3, 0)
    assert len(told(rows)) == 3
    web.pages["/breacheddomain/ours.example"].body = json.dumps({"info": ["SampleBreach", "Newer"]}).encode()
    assert scan().counts["new"] == 1
    assert len(told(rows)) == 4


def test_no_address_and_no_key_is_stored_told_or_said(
    scan: Scan, rows: Rows, keyed: None, web: Publisher, customers: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    _range(web, customers[0], "SampleBreach")
    web.pages["/search/"].body = ANSWERS["/search/"].replace(b"Accounts of", b"person@example.org sells")
    result = scan(customers=True)
    assert result.outcome is Outcome.OK
    tables = ("threat_intelligence", "groundskeeper.outbox", "groundskeeper.scan_state", "groundskeeper.task_run")
    everything = "\n".join(str(rows(f"select t::text from {t} t".replace("::", r"\:\:"))) for t in tables)
    everything += json.dumps(result.document(), default=str) + "".join(capfd.readouterr())
    for secret in (*customers, ADDRESS, "person@", API_KEY, HASH_KEY):
        assert secret.lower() not in everything.lower(), secret
    sent = "\n".join(h.path for h in web.hits)
    assert "example.com" not in sent.replace("ours.example", "")


def test_customers_are_looked_for_only_when_switched_on_and_by_six_digits(
    scan: Scan, rows: Rows, keyed: None, web: Publisher, customers: list[str]
) -> None:
    path = _range(web, customers[1], "SampleBreach")
    scan()
    assert not [h for h in web.hits if "range" in h.path]
    result = scan(customers=True)
    assert result.counts["addresses_checked"] == 3
    asked = [h.path for h in web.hits if "range" in h.path]
    assert len(asked) == 3
    assert path in asked
    assert all(len(p.rpartition("/")[2]) == 6 for p in asked)
    (event,) = [e for e in told(rows) if e["account_id"]]
    assert (event["account_id"], event["data"]["breach"]) == ("acc_1", "SampleBreach")
    assert not [k for k in found(rows) if "Stranger" in k]


def test_a_long_wait_is_kept_and_the_next_run_goes_on_from_there(
    scan: Scan, rows: Rows, keyed: None, web: Publisher, customers: list[str], clock: ManualClock
) -> None:
    path = _range(web, customers[1], status=429, headers={"Retry-After": "600"})
    result = scan(customers=True)
    assert result.outcome is Outcome.STOPPED
    assert "hibp_customers asks to be left alone until" in (result.error or "")
    before = len(web.hits)
    clock.advance(timedelta(seconds=300))
    assert scan(customers=True).outcome is Outcome.STOPPED
    assert not [h for h in web.hits[before:] if "range" in h.path]
    clock.advance(timedelta(seconds=302))
    _range(web, customers[1], "SampleBreach")
    before = len(web.hits)
    assert scan(customers=True).outcome is Outcome.OK
    asked = [h.path for h in web.hits[before:] if "range" in h.path]
    assert (len(asked), asked[0]) == (2, path)  # not the first customer again
    assert rows("select cursor from groundskeeper.scan_state where scan = 'hibp_customers'") == [({},)]


def test_a_short_wait_is_waited_for(
    scan: Scan, keyed: None, web: Publisher, customers: list[str], clock: ManualClock
) -> None:
    page = Page(status=429, headers={"Retry-After": "3"})
    web.pages["/breaches"], after = page, web.pages["/breaches"]
    started, slept = clock.elapsed, clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if clock.elapsed - started >= 3:
            web.pages["/breaches"] = after

    clock.sleep = sleep  # type: ignore[method-assign]
    assert scan().outcome is Outcome.OK


def test_requests_keep_to_the_plans_rate(
    scan: Scan, keyed: None, web: Publisher, customers: list[str], clock: ManualClock
) -> None:
    started = clock.elapsed
    scan(customers=True, terms="", manners={**MANNERS, "per_minute": 10})
    assert clock.elapsed - started >= 2 * 6  # three customers, six seconds apart


def test_without_keys_what_needs_none_is_done_and_the_rest_is_named(scan: Scan, rows: Rows) -> None:
    result = scan(customers=True)
    assert result.outcome is Outcome.UNAVAILABLE
    assert "addresses at our domains and of customers (secret dark-web-hash-key and hibp-key)" in (result.error or "")
    assert len(found(rows)) == 2
    bare = scan(domains="", terms="")
    assert "OWN_DOMAINS is empty" in (bare.error or "")
    assert "BRAND_TERMS is empty" in (bare.error or "")


@pytest.mark.parametrize(
    ("path", "page", "said"),
    [
        ("/breaches", Page(b"<html>"), "hibp_breaches: its answer is not JSON"),
        ("/breaches", Page(b"{}"), "hibp_breaches: its catalogue is not a list"),
        ("/breaches", Page(b"x" * (2 << 20)), "hibp_breaches: its answer is larger than 1 MB"),
        ("/breaches", Page(status=500), "hibp_breaches: answered 500"),
        ("/breacheddomain/ours.example", Page(status=403), "hibp_domain: refused us (403)"),
        ("/breacheddomain/ours.example", Page(b'{"x": ["\\u0000"]}'), "hibp_domain: it names a breach nobody"),
        ("/search/", Page(b"<html>moved</html>"), "ahmia: its page has neither results nor"),
        ("/search/", Page(status=404), "ahmia: has no search page"),
    ],
)
def test_a_service_that_fails_is_red_and_hides_no_other(
    scan: Scan, rows: Rows, keyed: None, web: Publisher, path: str, page: Page, said: str
) -> None:
    web.pages[path] = page
    result = scan()
    assert result.outcome is Outcome.PARTIAL
    assert said in (result.error or "")
    assert result.counts["new"] == 2


def test_what_only_looks_like_a_mention_is_none(scan: Scan, rows: Rows, keyed: None, web: Publisher) -> None:
    page = ANSWERS["/search/"]
    web.pages["/search/"].body = page.replace(b"Groundskeeper Demo", b"somebody else") + page.replace(
        b".onion", b".com"
    )
    scan()
    assert not [k for k in found(rows) if k.startswith("mention")]
    web.pages["/search/"].body = b"<p>Sorry, no results</p>"
    assert scan().outcome is Outcome.OK


def test_the_shipped_samples_need_neither_key_nor_network(run_task: RunTask, rows: Rows) -> None:
    result = run_task("scan_dark_web", params={"source": "samples"})
    assert (result.outcome, result.counts["new"]) == (Outcome.OK, 3)
