"""delete_account, called as its page calls it: who may, what goes, what stays, and what the receipt says."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared import erasure, holds
from shared.accounts.inventory import HANGING, PROFILE, REPORTS, STORES
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.stripe_server import Fault
from shared.manifest import load_all
from shared.settings import Settings
from tests.accounts import world as worlds
from tests.accounts.fixtures import Answer
from tests.accounts.fixtures import ask as ask
from tests.accounts.fixtures import using as using
from tests.accounts.fixtures import world as world
from tests.accounts.world import KEY, TABLES, World
from tests.conftest import ManualClock, RunTask

Rows = Callable[..., list[Any]]
Ask = Callable[..., Answer]


def test_nothing_of_the_account_is_left_anywhere_and_nobody_elses_is_touched(
    world: World, ask: Ask, db: Database
) -> None:
    gone, kept = world.account("gone7f3a"), world.account("kept91bc")
    before, files = worlds.snapshot(db, without=gone), world.files(kept)
    assert set(world.traces(gone)) >= {store.table for store in (*STORES, *REPORTS, PROFILE)} - {"service_forecast"}
    status, document = ask(token=world.token(gone))
    assert (status, document["status"]) == (200, "deleted")
    assert world.traces(gone) == {}
    assert world.files(gone) == []
    after = worlds.snapshot(db, without=gone)
    emptied = {store.table for store in REPORTS}
    assert {t: r for t, r in after.items() if t not in emptied} == {t: r for t, r in before.items() if t not in emptied}
    assert world.files(kept) == files
    assert [s["status"] for s in world.stripe_store.newest("subscription")] == ["active", "canceled"]


def test_the_receipt_counts_what_went_and_zero_of_what_is_left(world: World, ask: Ask, rows: Rows) -> None:
    world.account("gone7f3a", rows=3)
    receipt = ask(token=world.token("gone7f3a"))[1]["receipt"]
    assert set(receipt["recount"].values()) == {0}
    assert set(receipt["recount"]) == {s.table for s in (*STORES, *REPORTS, PROFILE)} | {"objects"}
    assert receipt["deleted"] == {
        **{store.table: 3 for store in STORES},
        "groundskeeper.billing_grant": 1,
        "groundskeeper.billing_customer": 1,
        "user_profile": 1,
        "objects": 9,
    }
    assert receipt["anonymised"] == {"bug_report": 3, "threat_report": 3}
    assert receipt["subscription"] == {"policy": "cancel_now", "cancelled": 1, "ended_before": 0}
    assert all(one["until"] is None or one["until"] > receipt["completed_at"] for one in receipt["still_exists"])
    assert {"backups of the database"} <= {one["what"] for one in receipt["still_exists"]}
    assert rows("select account_id, receipt from groundskeeper.erasure") == [(None, receipt)]


def test_reports_stay_without_their_sender(world: World, ask: Ask, rows: Rows) -> None:
    world.account("gone7f3a", rows=1)
    ask(token=world.token("gone7f3a"))
    assert rows("select account_id, reporter_email, ip_address, user_agent, title, body from bug_report") == [
        (None, None, None, None, "It breaks", "when I press it")
    ]
    assert rows("select account_id, reporter_email, ip_address, indicator from threat_report") == [
        (None, None, None, "evil.example")
    ]


def test_calling_again_gives_the_same_receipt_and_a_user_without_account_is_deleted_already(
    world: World, ask: Ask
) -> None:
    world.account("gone7f3a")
    first = ask(token=world.token("gone7f3a"))
    assert ask(token=world.token("gone7f3a")) == first
    world.firebase.users.add("new@example.com", "a password", uid="uid-new")
    status, document = ask(token=world.token("new"))
    assert (status, document["status"], document["receipt"]) == (200, "deleted", None)


@pytest.mark.parametrize("spoil", ["none", "scheme", "old", "revoked"])
def test_who_is_not_freshly_signed_in_deletes_nothing(
    world: World, run_task: RunTask, using: Settings, spoil: str, capfd: pytest.CaptureFixture[str]
) -> None:
    world.account("kept91bc", customer=False)
    uid, call = "uid-kept91bc", None
    token = world.token("kept91bc", signed_in_ago=301 if spoil == "old" else 0)
    match spoil:
        case "none":
            call = world.call("DELETE", token=None)
        case "scheme":
            call = world.call("DELETE", token=None, authorization=f"Basic {token}")
        case "revoked":
            world.clock.advance(timedelta(seconds=2))
            world.firebase.users.update({"localId": uid, "validSince": str(int(world.clock.now().timestamp()))})
    result = run_task("delete_account", call or world.call("DELETE", token=token), using=using)
    assert result.outcome is Outcome.OK
    assert result.reply is not None
    assert result.reply.status == 401
    assert result.counts == {"unknown_callers": 1}
    assert world.traces("kept91bc")["user_profile"] == 1
    written = capfd.readouterr()
    assert token not in written.out + written.err + result.reply.body.decode()


@pytest.mark.parametrize(
    "hold",
    [{"account": "held2d5e"}, {}, {"table": "audit_log"}, {"table": "public.bug_report", "account": "held2d5e"}],
)
def test_what_a_hold_covers_is_not_deleted_and_nothing_else_of_it_either(
    world: World, ask: Ask, db: Database, clock: ManualClock, hold: dict[str, str]
) -> None:
    world.account("held2d5e", rows=1)
    with db.transaction() as connection:
        hold_id = holds.add(connection, reason="a case", by="counsel", now=clock.now(), **hold)
    before = worlds.snapshot(db, without="no such name")
    status, document = ask(token=world.token("held2d5e"))
    assert status == 409
    assert "case" not in document["error"]
    assert worlds.snapshot(db, without="no such name") == before
    with db.transaction() as connection:
        assert not erasure.erased(connection, "held2d5e", KEY)
        holds.release(connection, hold_id, by="counsel", why="closed", now=clock.now())
    assert ask(token=world.token("held2d5e"))[0] == 200


def test_a_hold_on_somebody_else_or_on_an_empty_table_is_in_nobodys_way(
    world: World, ask: Ask, db: Database, clock: ManualClock
) -> None:
    world.account("gone7f3a")
    with db.transaction() as connection:
        holds.add(connection, reason="a case", by="counsel", now=clock.now(), account="gone7f3")
        holds.add(connection, reason="a case", by="counsel", now=clock.now(), table="cookie_consent")
        holds.add(connection, reason="over", by="counsel", now=clock.now(), expires_at=clock.now() + timedelta(hours=1))
    clock.advance(timedelta(hours=1))
    assert ask(token=world.token("gone7f3a"))[0] == 200


def test_rows_that_a_restore_brought_back_hold_their_account(
    world: World, ask: Ask, db: Database, clock: ManualClock, rows: Rows
) -> None:
    run_id = "00000000-0000-4000-8000-000000000001"
    for name in ("gone7f3a", "held2d5e"):
        world.account(name, rows=1)
    with db.transaction() as connection:
        connection.execute(
            text("""
                insert into groundskeeper.restored_row (source, key, run_id, until)
                select 'public.outbox_event', cast(row(id) as text), cast(:run as uuid), :until from outbox_event
                 where payload ->> 'account_id' = 'held2d5e'"""),
            {"run": run_id, "until": clock.now() + timedelta(days=30)},
        )
        holds.add(
            connection, reason="restored", by="ops", now=clock.now(), table="public.outbox_event", run_id=run_id,  # type: ignore[arg-type]
        )  # fmt: skip
    assert ask(token=world.token("held2d5e"))[0] == 409
    assert ask(token=world.token("gone7f3a"))[0] == 200


def test_rows_of_others_that_hang_on_the_accounts_stop_it_before_anything_goes(
    world: World, run_task: RunTask, using: Settings, db: Database, rows: Rows
) -> None:
    world.account("gone7f3a", rows=1, customer=False)
    world.account("kept91bc", rows=1, customer=False)
    with db.transaction() as connection:
        connection.execute(
            text("""
                update monitored_service
                   set status_page_id = (select id from status_page where account_id = 'gone7f3a')
                 where account_id = 'kept91bc'""")
        )
    before = worlds.snapshot(db, without="no such name")
    result = run_task("delete_account", world.call("DELETE", token=world.token("gone7f3a")), using=using)
    assert result.outcome is Outcome.REFUSED
    assert "1 row of other accounts in monitored_service" in str(result.error)
    assert worlds.snapshot(db, without="no such name") == before


@pytest.mark.parametrize("kind", ["429", "500"])
def test_while_stripe_does_not_answer_nothing_is_deleted_and_the_next_call_finishes(
    world: World, run_task: RunTask, using: Settings, ask: Ask, kind: str
) -> None:
    world.account("gone7f3a", rows=1)
    world.stripe.faults.append(Fault(kind, times=9))
    result = run_task("delete_account", world.call("DELETE", token=world.token("gone7f3a")), using=using)
    assert result.outcome is Outcome.RETRY
    assert world.traces("gone7f3a")["user_profile"] == 1
    world.stripe.faults.clear()
    assert ask(token=world.token("gone7f3a"))[0] == 200


def test_every_subscription_of_every_customer_of_the_account_is_ended_and_no_others(
    world: World, ask: Ask, db: Database
) -> None:
    """Two Checkouts made two customers; one more was the account's once, and is another profile's by now."""
    world.account("gone7f3a", rows=1)
    world.account("kept91bc", rows=1)
    price = world.stripe_store.newest("price")[0]["id"]
    world.stripe_store.customer({}, "cus_second")
    second = world.stripe_store.subscription("cus_second", [price])
    with db.transaction() as connection:
        connection.execute(
            text(
                "insert into groundskeeper.billing_customer (customer_id, account_id) values ('cus_second', 'gone7f3a')"
            )
        )
        connection.execute(
            text("update groundskeeper.billing_customer set account_id = 'gone7f3a' where customer_id = 'cuskept91bc'")
        )
    receipt = ask(token=world.token("gone7f3a"))[1]["receipt"]
    assert receipt["subscription"] == {"policy": "cancel_now", "cancelled": 2, "ended_before": 0}
    assert world.stripe_store.get("subscription", second["id"])["status"] == "canceled"
    assert [s["status"] for s in world.stripe_store.of_customer("cuskept91bc")] == ["active"]


def test_a_customer_unknown_to_stripe_is_ended_already(world: World, ask: Ask, db: Database) -> None:
    world.account("gone7f3a", rows=1, customer=False)
    with db.transaction() as connection:
        connection.execute(
            text("update user_profile set stripe_customer_id = 'cus_x', stripe_subscription_id = 'sub_x'")
        )
    receipt = ask(token=world.token("gone7f3a"))[1]["receipt"]
    assert receipt["subscription"] == {"policy": "cancel_now", "cancelled": 0, "ended_before": 0}


def test_without_stripes_key_a_paying_account_waits_and_a_free_one_goes(
    world: World, run_task: RunTask, using: Settings, tmp_path: Any
) -> None:
    worlds.secrets_of(tmp_path / "bare", stripe=False)
    bare = replace(using, secrets_folder=tmp_path / "bare")
    world.account("paying4c", rows=1)
    world.account("free8d", rows=1, customer=False)
    calls = [world.call("DELETE", token=world.token(name)) for name in ("paying4c", "free8d")]
    paying, free = (run_task("delete_account", call, using=bare) for call in calls)
    assert (paying.outcome, free.outcome) == (Outcome.UNAVAILABLE, Outcome.OK)
    assert "stripe-api-key" in str(paying.error)
    assert world.traces("paying4c")["endpoints"] == 1


def test_a_key_of_the_other_mode_cancels_nothing(world: World, run_task: RunTask, using: Settings) -> None:
    world.account("gone7f3a", rows=1)
    call = world.call("DELETE", token=world.token("gone7f3a"))
    with world.db.transaction() as connection:
        connection.execute(text("update groundskeeper.environment set livemode = true"))
    result = run_task("delete_account", call, using=replace(using, livemode=True))
    assert result.outcome is Outcome.UNAVAILABLE
    assert "live" in str(result.error)


@pytest.mark.parametrize(("policy", "status"), [("cancel_prorated", "canceled"), ("period_end", "active")])
def test_the_policy_says_how_a_subscription_ends(
    world: World, using: Settings, clock: ManualClock, policy: str, status: str
) -> None:
    from shared.accounts import subscription

    world.account("gone7f3a", rows=1)
    ended = subscription.end(
        key=worlds.STRIPE_KEY,
        emulator=world.stripe.url,
        livemode=False,
        customers=["cusgone7f3a"],
        subscription=None,
        policy=policy,  # type: ignore[arg-type]
        run="a run",
    )
    assert ended == {"cancelled": 1, "ended_before": 0}
    assert [s["status"] for s in world.stripe_store.newest("subscription")] == [status]


def test_long_deletions_are_answered_with_where_to_ask_and_go_on(
    world: World, ask: Ask, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, run_task: RunTask, using: Settings
) -> None:
    world.account("gone7f3a", rows=3)
    looks = iter(range(100_000))  # each look at the clock takes most of a second
    monkeypatch.setattr(clock, "monotonic", lambda: next(looks) * 0.7)
    status, document = ask(token=world.token("gone7f3a"))
    monkeypatch.undo()
    monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", world.firebase.host)
    assert (status, document["status"]) == (202, "deleting")
    assert ask("GET", document["status_url"], token=world.token("gone7f3a"))[0] == 202
    world.account("other5e")
    assert ask("GET", document["status_url"], token=world.token("other5e"))[0] == 404
    assert ask("GET", worlds.PATH + "/nonsense", token=world.token("gone7f3a"))[0] == 404
    clock.advance(timedelta(minutes=2))
    assert run_task("finish_deletions", using=using).counts["accounts.deleted"] == 1
    status, document = ask("GET", document["status_url"], token=world.token("gone7f3a"))
    assert (status, document["receipt"]["recount"]["user_profile"]) == (200, 0)
    assert world.traces("gone7f3a") == {}


def test_by_hand_it_says_who_deletes_accounts(run_task: RunTask, using: Settings) -> None:
    result = run_task("delete_account", using=using)
    assert result.outcome is Outcome.REFUSED
    assert "finish_deletions" in str(result.error)


def test_no_log_line_and_no_ledger_row_names_the_account(
    world: World, ask: Ask, rows: Rows, capfd: pytest.CaptureFixture[str]
) -> None:
    from shared import logs

    logs.configure("stdout", logging.INFO)
    world.account("gone7f3a")
    ask(token=world.token("gone7f3a"))
    assert "run ended" in (written := capfd.readouterr().out)
    assert "gone7f3a" not in written
    assert rows("select 1 from groundskeeper.task_run t where cast(t as text) like '%gone7f3a%'") == []


# Tables with a column that could name an account, in which none is deleted, and why.
STAYS = {
    "groundskeeper.erasure": "the deletion itself: the id goes when it is completed, hashes stay",
    "groundskeeper.legal_hold": "evidence of why something was kept; one in force stops the deletion",
    "groundskeeper.operator_audit": "what operators did, 18 months: accountability of those who hold the power",
    "groundskeeper.plan": "what a run would have done, 400 days: a platform's own ids, evidence of approvals",
    "groundskeeper.query_analysis": "figures of the server's statistics",
    "groundskeeper.query_plan": "statements as pg_stat_statements keeps them: without their values",
    "groundskeeper.scan_state": "how far a scan has come, overwritten by the next one",
    "groundskeeper.secret_rotation": "versions of the platform's own secrets",
    "groundskeeper.run_request": "what operators asked for, 400 days",
    "groundskeeper.task_run": "counts, by law without personal data",
    "groundskeeper.dead_letter": "what could not be understood, cut and without addresses, 30 days",
    "cookie_consent": "visitors without account",
    "idea": "the platform's own",
    "ml_window": "counts over everybody, no account in them",
    "signal": "the platform's own",
    "threat_intelligence": "public indicators; of addresses in breaches a keyed hash, as the receipt says",
    "training_run": "metrics of models",
}


def test_every_table_that_can_hold_account_data_is_in_the_inventory_or_explained() -> None:
    inventory = {store.table for store in (*STORES, *REPORTS, PROFILE)}
    loose = {
        name
        for name, table in TABLES.items()
        if any("account" in c.name or c.type.__class__.__name__ == "JSONB" for c in table.c)
        or any(key.column.table.fullname == "user_profile" for key in table.foreign_keys)
    }
    assert loose - inventory - set(STAYS) == set()
    assert inventory <= set(TABLES)
    assert not inventory & set(STAYS)


def test_whatever_hangs_on_an_accounts_rows_is_looked_at() -> None:
    owned = {store.table for store in STORES}
    hanging = {
        (name, key.parent.name, key.column.table.fullname)
        for name, table in TABLES.items()
        for key in table.foreign_keys
        if key.column.table.fullname in owned
    }
    assert hanging == set(HANGING)


def test_both_tasks_have_one_policy_and_it_tells_no_less_than_the_truth() -> None:
    tasks = load_all()
    policy = tasks["delete_account"].params["policy"]
    assert tasks["finish_deletions"].params["policy"] == policy
    days = {one["what"]: one.get("days", 0) for one in policy["remains"]}
    if "backup_database" in tasks:
        keep = tasks["backup_database"].params["keep"]
        assert days["backups of the database"] >= max(keep["daily"], 7 * keep["weekly"], 31 * keep["monthly"])
    archived = [
        r["archive"]["keep_days"]
        for r in tasks["db_cleanup"].params["rules"]
        if "outbox" in r["name"] and "archive" in r
    ]
    assert days["archived events"] >= max(archived) + 14
