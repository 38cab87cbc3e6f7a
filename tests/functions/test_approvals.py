"""approvals: an operator signs in by Firebase, looks at a plan, decides; what was approved runs, once, exactly."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared import settings as settings_module
from shared.call import Request, by_hand, of_request
from shared.database import Database
from shared.errors import Outcome
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.manifest import FUNCTIONS, Http, load
from shared.result import Result
from shared.settings import Settings
from tests.conftest import NOW, ManualClock, RunTask
from tests.started import Endpoint, function

ANN, BEN, EVE = "ann@example.com", "ben@example.com", "eve@example.com"
Rows = Callable[..., list[Any]]


@pytest.fixture
def firebase(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirebaseAuth]:
    """Two operators, one who claims to be, one who is nobody."""
    server = FirebaseAuth("demo-groundskeeper", clock)
    monkeypatch.setenv(VARIABLE, server.host)
    for email, claims in ((ANN, {"operator": True}), (BEN, {"admin": True}), (EVE, {"operator": True})):
        server.users.add(email, "a password", uid=email[:3], **claims)
    server.users.add("nobody@example.com", "a password", uid="nobody")
    yield server
    server.stop()


@pytest.fixture
def small(tmp_path: Path, run_task: RunTask, db: Database) -> Iterator[Callable[..., Result]]:
    """db_cleanup with a cap of five rows, and twenty audit entries that are due; run it."""
    place = tmp_path / "functions" / "db_cleanup"
    shutil.copytree(FUNCTIONS / "db_cleanup", place, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = place / "task.yaml"
    manifest.write_text(manifest.read_text().replace("caps: {rows: 5000000}", "caps: {rows: 5}"))
    with db.transaction() as connection:
        connection.execute(
            text(
                "insert into audit_log (actor, action, created_at)"
                " select 'app', 'login', :at from generate_series(1, 20)"
            ),
            {"at": NOW - timedelta(days=40)},
        )
    return lambda call=None, **given: run_task("db_cleanup", call, functions=place.parent, **given)


@pytest.fixture
def cleanup(small: Callable[..., Result]) -> Iterator[Endpoint]:
    with function(lambda request: small(by_hand(request))) as endpoint:
        yield endpoint


@dataclass
class Web:
    """A browser's side: requests with a token, answers with their status and JSON."""

    run_task: RunTask
    settings: Settings
    firebase: FirebaseAuth

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: str | None = "ann",
        key: str | None = None,
        ago: int = 60,
    ) -> tuple[int, Any]:
        headers = {"content-type": "application/json"}
        if who:
            headers["authorization"] = "Bearer " + self.firebase.users.token(who, signed_in_ago=ago)
        if key:
            headers["idempotency-key"] = key
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(method, path, {}, headers, raw)
        endpoint = next(
            t for t in load(FUNCTIONS / "approvals").triggers if isinstance(t, Http) and method in t.methods
        )
        result = self.run_task("approvals", of_request(request, endpoint), using=self.settings)
        if result.reply is None:
            return -1, result.outcome
        return result.reply.status, json.loads(result.reply.body)

    def get(self, path: str, **given: Any) -> tuple[int, Any]:
        return self.ask("GET", path, **given)

    def post(self, path: str, body: Any, **given: Any) -> tuple[int, Any]:
        return self.ask("POST", path, body, **given)


@pytest.fixture
def web(run_task: RunTask, settings: Settings, firebase: FirebaseAuth, cleanup: Endpoint) -> Web:
    variables = {
        VARIABLE: firebase.host, "KEEPER_OPERATORS": f"{ANN},{BEN}", "KEEPER_TARGET_DB_CLEANUP": cleanup.url
    }  # fmt: skip
    using = settings_module.read({**settings.environ, **variables})
    return Web(run_task, replace(using, database_url=settings.database_url), firebase)


@pytest.fixture
def opened(web: Web, small: Callable[..., Result]) -> str:
    """The path of the approval that a run above its cap, asked for by ann, has opened."""
    assert small(actor=ANN).outcome is Outcome.REFUSED
    status, document = web.get("/approvals")
    assert status == 200
    (found,) = document["approvals"]
    assert (found["task"], found["requested_by"], found["decision"]) == ("db_cleanup", ANN, None)
    return f"/approvals/{found['approval_id']}"


def left(rows: Rows) -> int:
    return int(rows("select count(*) from audit_log")[0][0])


def test_what_another_operator_approves_runs_at_once_and_exactly(
    opened: str, web: Web, cleanup: Endpoint, rows: Rows
) -> None:
    status, shown = web.get(opened, who="ben")
    assert (status, shown["plan"]["ceiling"]) == (200, {"rows": 20})
    assert [item["count"] for item in shown["plan"]["items"] if item["count"]] == [20]
    assert left(rows) == 20
    status, answer = web.post(f"{opened}/approve", {"why": "looked at it"}, who="ben")
    assert (status, answer["approval"]["decision"], answer["approval"]["decided_by"]) == (200, "approved", BEN)
    assert [result.outcome for result in cleanup.ended] == [Outcome.OK]
    assert answer["run_request"] == str(cleanup.asked[0])
    assert left(rows) == 0
    assert [tuple(r) for r in rows("select actor, action, why from groundskeeper.operator_audit")] == [
        (BEN, "approve", "looked at it")
    ]


def test_a_rejected_plan_never_runs(opened: str, web: Web, cleanup: Endpoint, rows: Rows) -> None:
    assert web.post(f"{opened}/reject", {"why": "not today"}, who="ben")[0] == 200
    assert web.post(f"{opened}/approve", {"why": "after all"}, who="ben")[0] == 409
    assert web.get("/approvals")[1] == {"approvals": []}
    assert (cleanup.asked, left(rows)) == ([], 20)


def test_who_asked_may_not_approve_alone_but_may_reject(opened: str, web: Web, cleanup: Endpoint) -> None:
    status, answer = web.post(f"{opened}/approve", {"why": "mine"})
    assert (status, cleanup.asked) == (409, [])
    assert "another operator" in answer["error"]
    assert web.post(f"{opened}/reject", {"why": "mine"})[0] == 200


def test_who_asked_may_break_the_glass_with_a_reason_and_the_audit_says_so(
    opened: str, web: Web, cleanup: Endpoint, rows: Rows, capfd: pytest.CaptureFixture[str]
) -> None:
    assert web.post(f"{opened}/approve", {"why": " ", "break_glass": True})[0] == 400
    assert web.post(f"{opened}/approve", {"why": "ben is away, disk full", "break_glass": True})[0] == 200
    assert cleanup.ended[0].outcome is Outcome.OK
    entries = rows(
        "select action, why, details ->> 'alone' as alone from groundskeeper.operator_audit order by audit_id"
    )
    assert [tuple(e) for e in entries[:2]] == [
        ("approve", "ben is away, disk full", None),
        ("break_glass", "ben is away, disk full", "true"),
    ]


def test_the_only_operator_may_approve_what_they_asked_for(opened: str, web: Web, cleanup: Endpoint) -> None:
    web.settings = replace(web.settings, operators=(ANN,))
    assert web.post(f"{opened}/approve", {"why": "alone here"})[0] == 200
    assert cleanup.ended[0].outcome is Outcome.OK


def test_an_approval_is_used_once_however_often_it_is_given(opened: str, web: Web, cleanup: Endpoint) -> None:
    key = str(uuid.uuid4())
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben", key=key)[0] == 200
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben", key=key) == (-1, Outcome.SKIPPED)
    assert web.post(f"{opened}/approve", {"why": "again"}, who="ben")[0] == 409
    assert len(cleanup.asked) == 1


def test_an_approved_run_that_could_not_be_started_is_started_by_the_same_decision_again(
    opened: str, web: Web, cleanup: Endpoint, rows: Rows
) -> None:
    there = web.settings
    web.settings = replace(there, targets={"db_cleanup": "http://127.0.0.1:9/"})
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben") == (-1, Outcome.RETRY)
    web.settings = there
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben")[0] == 200
    assert (cleanup.ended[0].outcome, left(rows)) == (Outcome.OK, 0)


def test_at_its_expiry_an_approval_can_no_longer_be_given(
    opened: str, web: Web, cleanup: Endpoint, clock: ManualClock
) -> None:
    clock.advance(timedelta(hours=24))
    status, answer = web.post(f"{opened}/approve", {"why": "late"}, who="ben")
    assert (status, cleanup.asked) == (409, [])
    assert "expired" in answer["error"]


def test_a_plan_that_changed_since_does_not_run(
    opened: str, web: Web, cleanup: Endpoint, rows: Rows, tmp_path: Path
) -> None:
    main = tmp_path / "functions" / "db_cleanup" / "main.py"
    main.write_text(main.read_text() + "\n# another version\n")
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben")[0] == 200
    assert cleanup.ended[0].outcome is Outcome.REFUSED
    assert "no longer holds" in (cleanup.ended[0].error or "")
    assert left(rows) == 20


def test_more_than_what_was_approved_is_refused(
    opened: str, web: Web, cleanup: Endpoint, rows: Rows, db: Database
) -> None:
    with db.transaction() as connection:
        connection.execute(
            text("insert into audit_log (actor, action, created_at) values ('app', 'login', :at)"),
            {"at": NOW - timedelta(days=40)},
        )
    assert web.post(f"{opened}/approve", {"why": "yes"}, who="ben")[0] == 200
    assert cleanup.ended[0].outcome is Outcome.REFUSED
    assert left(rows) == 21


@pytest.mark.parametrize(
    ("who", "status"), [(None, 401), ("nobody", 403), ("eve", 403)], ids=["no token", "no claim", "not on the list"]
)
def test_strangers_learn_and_decide_nothing(
    opened: str, web: Web, cleanup: Endpoint, who: str | None, status: int
) -> None:
    answers = [
        web.get("/approvals", who=who), web.get(opened, who=who),
        *(web.post(f"{opened}/{way}", {"why": "let me"}, who=who) for way in ("approve", "reject")),
    ]  # fmt: skip
    assert [(answered, set(document)) for answered, document in answers] == [(status, {"error"})] * 4
    assert cleanup.asked == []


def test_a_decision_needs_a_fresh_sign_in_and_looking_does_not(opened: str, web: Web) -> None:
    assert web.get(opened, ago=3000)[0] == 200
    assert web.post(f"{opened}/reject", {"why": "x"}, ago=901)[0] == 401
    assert web.post(f"{opened}/reject", {"why": "x"}, ago=900)[0] == 200


def test_a_body_that_is_no_decision_decides_nothing(opened: str, web: Web) -> None:
    bodies: list[Any] = [
        b"", b"{", b"[]", b"\xff", {"why": 1}, {"why": ""}, {"why": "x" * 501}, {"why": "x", "break_glass": 1},
        {"why": "x", "plan_hash": "other"},
    ]  # fmt: skip
    for body in bodies:
        status, answer = web.post(f"{opened}/approve", body, who="ben")
        assert (status, set(answer)) == (400, {"error"}), body


def test_what_is_not_there_is_not_found_and_a_wrong_method_is_said(opened: str, web: Web) -> None:
    assert web.get(f"/approvals/{uuid.uuid4()}")[0] == 404
    assert web.post(f"/approvals/{uuid.uuid4()}/approve", {"why": "x"})[0] == 404
    assert web.get("/approvals/../secrets")[0] == 404
    assert web.get(f"{opened}/approve")[0] == 405


def test_while_firebase_is_down_nobody_is_let_in_and_the_caller_is_told_to_come_again(
    opened: str, web: Web, cleanup: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_source = web.firebase
    monkeypatch.setenv(VARIABLE, "127.0.0.1:9")
    web.settings = replace(web.settings, environ={**web.settings.environ, VARIABLE: "127.0.0.1:9"})
    assert token_source.users.has("ann")
    assert web.post(f"{opened}/reject", {"why": "x"}) == (-1, Outcome.RETRY)
    assert cleanup.asked == []


def test_by_hand_the_endpoint_says_where_to_go(run_task: RunTask) -> None:
    result = run_task("approvals")
    assert result.outcome is Outcome.REFUSED
    assert "keeper approvals" in (result.error or "")
