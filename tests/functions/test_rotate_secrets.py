"""rotate_secrets: asks, waits, and takes each kind of secret through its steps, with a way back at each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import make_url, text

from shared import plans
from shared.call import Request, by_hand, of_request, of_slot
from shared.clock import rfc3339
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.laptop.stripe_server import StripeServer
from shared.manifest import FUNCTIONS, Cron, Http, load
from shared.secrets import LocalSecrets
from shared.settings import Settings
from tests.conftest import ManualClock, RunTask
from tests.killing import killer
from tests.rotating import (
    DATABASE,
    DAY,
    FIRST,
    HOUR,
    LOGINS,
    MANUAL,
    OWNER,
    TOKEN,
    URL,
    WEBHOOK,
    Rotate,
    Rows,
    Web,
    connects,
    states,
)
from tests.rotating import clock as clock
from tests.rotating import database_login as database_login
from tests.rotating import rotate as rotate
from tests.rotating import store as store
from tests.rotating import stripe as stripe
from tests.rotating import web as web
from tests.started import function


def test_the_first_of_the_month_asks_waits_and_writes_no_secret(
    run_task: RunTask, store: LocalSecrets, rows: Rows
) -> None:
    result = run_task("rotate_secrets", of_slot(Cron("0 0 1 * *"), FIRST))
    assert result.outcome is Outcome.WAITING
    assert store.versions("internal-api-token") == []
    (asked,) = rows("select task, decision, reason from groundskeeper.approval")
    assert tuple(asked) == ("rotate_secrets", None, "1 secret due to be rotated")
    assert rows("select 1 from groundskeeper.secret_rotation") == []


def test_while_an_approval_is_open_nothing_more_is_asked_and_a_rejected_month_is_left_alone(
    rotate: Callable[..., Rotate], rows: Rows, clock: ManualClock
) -> None:
    token = rotate(TOKEN)
    assert token.run().outcome is Outcome.WAITING
    clock.advance(HOUR)
    assert token.run().outcome is Outcome.WAITING
    assert len(rows("select 1 from groundskeeper.approval")) == 1
    token.decide(approve=False)
    assert token.run().outcome is Outcome.OK
    clock.moment = datetime(2026, 8, 1, tzinfo=UTC)
    assert token.run().outcome is Outcome.WAITING


def test_what_nobody_decided_is_asked_again_when_it_has_expired(
    rotate: Callable[..., Rotate], rows: Rows, clock: ManualClock
) -> None:
    token = rotate(TOKEN)
    token.run()
    clock.advance(DAY)
    assert token.run().outcome is Outcome.WAITING
    assert len(rows("select 1 from groundskeeper.approval")) == 2


def test_a_generated_token_goes_through_every_step_and_slack_hears_of_it(
    rotate: Callable[..., Rotate], store: LocalSecrets, web: Web, clock: ManualClock, rows: Rows
) -> None:
    store.add("internal-api-token", "the old token")
    token = rotate({**TOKEN, "check_url": web.check})
    result = token.through()
    assert (result.outcome, result.counts["promoted"]) == (Outcome.OK, 1)
    fresh = store.get("internal-api-token")
    assert (len(fresh) >= 40, states(store, "internal-api-token")) == (True, ["enabled", "enabled"])
    clock.advance(24 * HOUR - timedelta(microseconds=1))
    assert token.run().counts.get("disabled", 0) == 0
    clock.advance(timedelta(microseconds=1))
    assert token.run().counts["disabled"] == 1
    assert (states(store, "internal-api-token"), web.bearers) == (["disabled", "enabled"], [fresh])
    clock.advance(7 * DAY)
    assert token.run().counts["destroyed"] == 1
    assert states(store, "internal-api-token") == ["destroyed", "enabled"]
    assert token.run().outcome is Outcome.OK
    assert [r.step for r in rows("select step from groundskeeper.secret_rotation")] == ["destroyed"]
    assert any("version 2 is in use" in line for line in web.posted)
    assert fresh not in "".join(web.posted)


def test_a_consumer_that_refuses_the_new_value_keeps_the_old_one_enabled(
    rotate: Callable[..., Rotate], store: LocalSecrets, web: Web, clock: ManualClock
) -> None:
    store.add("internal-api-token", "the old token")
    token = rotate({**TOKEN, "check_url": web.check})
    token.through()
    web.check_status = 401
    clock.advance(DAY)
    result = token.run()
    assert result.outcome is Outcome.PARTIAL
    assert "answered 401" in (result.error or "")
    assert states(store, "internal-api-token") == ["enabled", "enabled"]
    assert token.run(back=["internal-api-token"]).counts["rolled_back"] == 1
    assert store.get("internal-api-token") == "the old token"


def test_slack_being_down_fails_nothing(rotate: Callable[..., Rotate], web: Web) -> None:
    web.slack_status = 500
    result = rotate(TOKEN).through()
    assert (result.outcome, result.counts["slack_failed"]) == (Outcome.OK, 1)


@pytest.mark.parametrize("after_grace", [False, True], ids=["while both work", "while it is disabled"])
def test_an_operator_can_go_back_until_the_old_value_is_destroyed(
    rotate: Callable[..., Rotate], store: LocalSecrets, clock: ManualClock, *, after_grace: bool
) -> None:
    store.add("internal-api-token", "the old token")
    token = rotate(TOKEN)
    token.through()
    if after_grace:
        clock.advance(DAY)
        token.run()
    assert token.run(back=["internal-api-token"]).outcome is Outcome.OK
    assert store.get("internal-api-token") == "the old token"
    assert states(store, "internal-api-token") == ["enabled", "disabled", "enabled"]
    refused = token.run(back=["internal-api-token"])
    assert (refused.outcome, "cannot come back" in (refused.error or "")) == (Outcome.REFUSED, True)


def test_a_database_login_changes_turns_and_what_it_makes_belongs_to_the_owner(
    rotate: Callable[..., Rotate], database_login: str, store: LocalSecrets, settings: Settings, clock: ManualClock,
    rows: Rows,
) -> None:  # fmt: skip
    app = rotate(DATABASE)
    result = app.through()
    assert result.outcome is Outcome.OK, result.error
    url = store.get("app-database-url")
    assert make_url(url).username == "rot_b"
    assert connects(url, settings) == OWNER
    assert connects(database_login, settings) is not None  # both work until the grace is over
    database = Database(replace(settings, database_url=url), "app", pool_size=1)
    with database.transaction() as connection:
        connection.execute(text("create table made_by_login (id int)"))
    database.close()
    assert rows("select tableowner from pg_tables where tablename = 'made_by_login'") == [(OWNER,)]
    clock.advance(DAY)
    assert app.run().counts["disabled"] == 1
    assert connects(database_login, settings) is None
    clock.advance(7 * DAY)
    assert app.run().counts["destroyed"] == 1
    passwords = rows("select rolname, rolpassword from pg_authid where rolname in ('rot_a', 'rot_b') order by 1")
    assert passwords[0] == ("rot_a", None)
    assert passwords[1].rolpassword.startswith("SCRAM-SHA-256$4096:")
    clock.moment = datetime(2026, 8, 1, tzinfo=UTC)
    assert app.through().outcome is Outcome.OK
    assert make_url(store.get("app-database-url")).username == "rot_a"


def test_a_login_that_is_still_used_is_not_disabled(
    rotate: Callable[..., Rotate], database_login: str, settings: Settings, clock: ManualClock
) -> None:
    app = rotate(DATABASE)
    app.through()
    clock.advance(DAY)
    database = Database(replace(settings, database_url=database_login), "app", pool_size=1)
    with database.transaction():
        result = app.run()
    database.close()
    assert (result.outcome, "login rot_a is still in use by 1 session:" in (result.error or "")) == (
        Outcome.PARTIAL,
        True,
    )
    assert connects(database_login, settings) is not None


@pytest.mark.parametrize("after_grace", [False, True], ids=["while both work", "while it is disabled"])
def test_a_database_login_goes_back_with_its_password(
    rotate: Callable[..., Rotate], database_login: str, store: LocalSecrets, settings: Settings, clock: ManualClock,
    *, after_grace: bool,
) -> None:  # fmt: skip
    app = rotate(DATABASE)
    app.through()
    new = store.get("app-database-url")
    if after_grace:
        clock.advance(DAY)
        app.run()
    result = app.run(back=["app-database-url"])
    assert result.outcome is Outcome.OK, result.error
    assert store.get("app-database-url") == database_login
    assert (connects(database_login, settings) is not None, connects(new, settings)) == (True, None)


def test_a_new_login_that_does_not_pass_its_test_is_given_to_nobody(
    rotate: Callable[..., Rotate], database_login: str, store: LocalSecrets, db: Database
) -> None:
    with db.transaction() as connection:  # nobody new may connect
        name = connection.execute(text("select current_database()")).scalar_one()
        connection.exec_driver_sql(f'revoke connect on database "{name}" from public')
        connection.exec_driver_sql(f'grant connect on database "{name}" to "rotate-secrets", {LOGINS[0]}')
    result = rotate(DATABASE).through()
    assert (result.outcome, result.counts["rolled_back"]) == (Outcome.PARTIAL, 1)
    assert store.get("app-database-url") == database_login
    with db.transaction() as connection:
        left = connection.execute(text("select rolcanlogin from pg_roles where rolname = 'rot_b'")).scalar_one()
    assert left is False


def test_stripes_secret_overlaps_and_the_old_endpoint_goes(
    rotate: Callable[..., Rotate], stripe: StripeServer, store: LocalSecrets, clock: ManualClock
) -> None:
    hook = rotate(WEBHOOK, stripe_emulator=stripe.url)
    result = hook.through()
    assert result.outcome is Outcome.OK, result.error
    new, old = store.get("stripe-webhook-secret").split()
    assert (new.startswith("whsec_"), old) == (True, "whsec_the_first_one")
    assert [e["url"] for e in stripe.store.newest("webhook_endpoint")].count(URL) == 2
    clock.advance(DAY)
    assert hook.run().counts["disabled"] == 1
    assert store.get("stripe-webhook-secret") == new
    here = [e for e in stripe.store.newest("webhook_endpoint") if e["url"] == URL]
    assert [stripe.store.webhook_secrets[e["id"]] for e in here] == [new]
    assert here[0]["enabled_events"] == ["customer.subscription.updated"]
    clock.advance(7 * DAY)
    hook.run()
    assert states(store, "stripe-webhook-secret") == ["destroyed", "destroyed", "enabled"]


def test_which_of_several_stripe_endpoints_is_ours_must_be_said(
    rotate: Callable[..., Rotate], stripe: StripeServer, store: LocalSecrets
) -> None:
    stripe.store.endpoint("https://staging.example.com/api/v1/stripe/webhook", ["*"])
    result = rotate(WEBHOOK, stripe_emulator=stripe.url).through()
    assert (result.outcome, "STRIPE_WEBHOOK_URL" in (result.error or "")) == (Outcome.PARTIAL, True)
    said = rotate({**WEBHOOK, "endpoint_url": URL}, stripe_emulator=stripe.url).through()
    assert said.outcome is Outcome.OK, said.error
    assert len(store.get("stripe-webhook-secret").split()) == 2


def test_stripes_secret_goes_back_during_the_overlap(
    rotate: Callable[..., Rotate], stripe: StripeServer, store: LocalSecrets
) -> None:
    hook = rotate(WEBHOOK, stripe_emulator=stripe.url)
    hook.through()
    assert hook.run(back=["stripe-webhook-secret"]).outcome is Outcome.OK
    assert store.get("stripe-webhook-secret") == "whsec_the_first_one"
    assert len([e for e in stripe.store.newest("webhook_endpoint") if e["url"] == URL]) == 1


def test_a_manual_secret_waits_for_its_operator_and_is_tested(
    rotate: Callable[..., Rotate], store: LocalSecrets, web: Web, clock: ManualClock
) -> None:
    store.add("stripe-api-key", "sk_test_old")
    key = rotate({**MANUAL, "check_url": web.check})
    result = key.through()
    assert (result.outcome, result.counts["awaiting_operator"]) == (Outcome.OK, 1)
    assert any("keeper secret add stripe-api-key" in line for line in web.posted)
    clock.advance(DAY)
    store.add("stripe-api-key", "sk_test_new_one")
    assert key.run().counts["promoted"] == 1
    assert web.bearers == ["sk_test_new_one"]
    clock.advance(DAY)
    assert key.run().counts["disabled"] == 1
    assert states(store, "stripe-api-key") == ["disabled", "enabled"]


def test_a_manual_value_that_does_not_work_is_left_for_the_one_before(
    rotate: Callable[..., Rotate], store: LocalSecrets, web: Web
) -> None:
    store.add("stripe-api-key", "sk_test_old")
    key = rotate({**MANUAL, "check_url": web.check})
    key.through()
    store.add("stripe-api-key", "sk_test_mistyped")
    web.check_status = 401
    assert key.run().outcome is Outcome.PARTIAL
    assert store.get("stripe-api-key") == "sk_test_old"


def test_one_secrets_trouble_keeps_no_other_from_its_rotation(
    rotate: Callable[..., Rotate], store: LocalSecrets
) -> None:
    store.add("app-database-url", "not a url at all ://")
    result = rotate(DATABASE, TOKEN).through()
    assert (result.outcome, result.counts["promoted"]) == (Outcome.PARTIAL, 1)
    assert "app-database-url" in (result.error or "")
    assert store.get("internal-api-token")


def test_no_value_is_in_the_ledger_the_log_or_a_message(
    rotate: Callable[..., Rotate], stripe: StripeServer, database_login: str, store: LocalSecrets, web: Web, rows: Rows,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    result = rotate(DATABASE, TOKEN, WEBHOOK, MANUAL, stripe_emulator=stripe.url).through()
    assert result.outcome is Outcome.OK, result.error
    store.add("stripe-api-key", "sk_test_another")
    tables = rows("select table_name from information_schema.tables where table_schema = 'groundskeeper'")
    kept = [str(rows(f"select * from groundskeeper.{table}")) for (table,) in tables if table != "run_request"]
    told = capfd.readouterr()
    everything = "".join([*kept, told.out, told.err, *web.posted, json.dumps(result.document())])
    names = ("app-database-url", "internal-api-token", "stripe-webhook-secret", "stripe-api-key")
    values = [store.get(n, str(v.number)) for n in names for v in store.versions(n)]
    for value in (
        *values,
        *(p for v in values for p in v.split()),
        make_url(store.get(names[0])).password,
        "slackpath",
    ):
        assert value not in everything


def test_from_the_schedule_over_http_to_slack(
    run_task: RunTask, settings: Settings, store: LocalSecrets, clock: ManualClock, web: Web, rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With the task's own targets: asked for on the first, approved by an operator over HTTP, run, told."""
    store.add("alert-slack-url", web.url)
    assert run_task("rotate_secrets", of_slot(Cron("0 0 1 * *"), FIRST)).outcome is Outcome.WAITING
    firebase = FirebaseAuth("demo-groundskeeper", clock)
    monkeypatch.setenv(VARIABLE, firebase.host)
    firebase.users.add("ann@example.com", "a password", uid="ann", operator=True)
    try:
        with function(lambda request: run_task("rotate_secrets", by_hand(request))) as rotate_secrets:
            using = replace(
                settings,
                operators=("ann@example.com", "ben@example.com"),
                environ={**settings.environ, VARIABLE: firebase.host},
                targets={"rotate_secrets": rotate_secrets.url},
            )
            (approval_id,) = rows("select approval_id from groundskeeper.approval")[0]
            headers = {"authorization": "Bearer " + firebase.users.token("ann")}
            body = json.dumps({"why": "the month's rotation"}).encode()
            request = Request("POST", f"/approvals/{approval_id}/approve", {}, headers, body)
            endpoint = next(t for t in load(FUNCTIONS / "approvals").triggers if isinstance(t, Http))
            answer = run_task("approvals", of_request(request, endpoint), using=using)
            assert answer.reply is not None
            assert answer.reply.status == 200
            assert [result.outcome for result in rotate_secrets.ended] == [Outcome.OK]
    finally:
        firebase.stop()
    assert len(store.get("internal-api-token")) >= 40
    assert any("approval" in line for line in web.posted[:1])
    assert "internal-api-token: version 1 is in use" in web.posted[-1]


def _killed_and_gone_on_with(
    rotate: Callable[..., Rotate], store: LocalSecrets, settings: Settings, db: Database, url: str, *, every: int
) -> int:
    """Kill the approved run before every `every`-th step; the same start again ends with both new values in use."""
    both = rotate(DATABASE, TOKEN)

    def arrange() -> str:
        with db.transaction() as connection:
            connection.execute(
                text("truncate groundskeeper.secret_rotation, groundskeeper.approval, groundskeeper.task_run cascade")
            )
        shutil.rmtree(store.folder / "internal-api-token", ignore_errors=True)
        store.add("internal-api-token", "the old token")
        store.add("app-database-url", url)
        assert both.run().outcome is Outcome.WAITING
        approved = both.decide()
        with db.transaction() as connection:
            params = plans.stored(connection, approved.plan_hash).params
            request = plans.request_run(
                connection, task="rotate_secrets", actor="t", why="a test", now=FIRST, params=params,
                plan_hash=approved.plan_hash,
            )  # fmt: skip
        return str(request)

    now = rfc3339(FIRST)
    with killer(dict(settings.environ), FUNCTIONS / "rotate_secrets") as kill:
        undisturbed = kill.run(request=arrange(), now=now)
        assert undisturbed.outcome == "ok", undisturbed
        for step in range(1, undisturbed.steps + 1, every):
            request = arrange()
            first = kill.run(request=request, now=now, step=step)
            # The first run of all takes a step more than the others: the last kill may come too late.
            assert first.killed or (first.outcome == "ok" and first.steps == step - 1), (step, first)
            with db.transaction() as connection:
                connection.execute(
                    text("update groundskeeper.task_attempt set heartbeat_at = heartbeat_at - interval '61 s'")
                )
            again = kill.run(request=request, now=now)
            assert again.outcome in ("ok", "skipped"), (step, again)
            with db.transaction() as connection:
                steps = connection.execute(text("select step from groundskeeper.secret_rotation")).scalars().all()
            assert steps == ["promoted", "promoted"], step
            assert store.get("internal-api-token") != "the old token"
            assert connects(store.get("app-database-url"), settings) == OWNER
            assert make_url(store.get("app-database-url")).username == "rot_b"
    return undisturbed.steps


def test_killed_at_some_steps_the_next_start_goes_on(
    rotate: Callable[..., Rotate], store: LocalSecrets, settings: Settings, db: Database, database_login: str
) -> None:
    _killed_and_gone_on_with(rotate, store, settings, db, database_login, every=60)


@pytest.mark.full
def test_killed_before_every_eighth_step_the_next_start_goes_on(
    rotate: Callable[..., Rotate], store: LocalSecrets, settings: Settings, db: Database, database_login: str
) -> None:
    assert _killed_and_gone_on_with(rotate, store, settings, db, database_login, every=8) > 40
