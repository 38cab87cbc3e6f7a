"""Who a person is, by the real firebase-admin against our double of Firebase Auth."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared import settings as settings_module
from shared.errors import Retry, Unavailable
from shared.identity import Identity, NotAllowed, NotSignedIn, Person
from shared.laptop.firebase import VARIABLE, FirebaseAuth
from shared.redaction import redact
from tests.conftest import ManualClock

PROJECT = "demo-groundskeeper"


@pytest.fixture
def firebase(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirebaseAuth]:
    server = FirebaseAuth(PROJECT, clock)
    monkeypatch.setenv(VARIABLE, server.host)
    yield server
    server.stop()


@pytest.fixture
def identity(firebase: FirebaseAuth, clock: ManualClock) -> Identity:
    return Identity(settings(firebase), clock)


def settings(firebase: FirebaseAuth, **more: str) -> settings_module.Settings:
    return settings_module.read({VARIABLE: firebase.host, "KEEPER_OPERATORS": "ops@example.com", **more})


def forged(claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    parts = ({"alg": "none", "typ": "JWT"} if header is None else header, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


def test_a_token_says_who_it_is_of(firebase: FirebaseAuth, identity: Identity, clock: ManualClock) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    person = identity.by_token(firebase.users.token("u1", signed_in_ago=90))
    assert person == Person("u1", "ann@example.com", clock.now() - timedelta(seconds=90), operator=False)
    assert "u1" not in repr(person)
    assert "example" not in repr(person)


def test_an_address_that_is_not_verified_is_no_address(firebase: FirebaseAuth, identity: Identity) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1", verified=False)
    assert identity.by_token(firebase.users.token("u1")).email is None


def test_a_sign_in_exactly_as_old_as_allowed_will_do_and_a_second_more_not(
    firebase: FirebaseAuth, identity: Identity
) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    five = timedelta(minutes=5)
    assert identity.by_token(firebase.users.token("u1", signed_in_ago=300), fresh_within=five)
    with pytest.raises(NotSignedIn, match="no older than 5 minutes"):
        identity.by_token(firebase.users.token("u1", signed_in_ago=301), fresh_within=five)


@pytest.mark.parametrize("spoil", ["expired", "revoked", "disabled", "gone", "future"])
def test_what_was_once_a_token_is_refused(
    firebase: FirebaseAuth, identity: Identity, clock: ManualClock, spoil: str
) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    token = firebase.users.token("u1")
    match spoil:
        case "expired":
            clock.advance(timedelta(hours=1, seconds=11))
        case "revoked":
            clock.advance(timedelta(seconds=5))
            firebase.users.update({"localId": "u1", "validSince": str(int(clock.now().timestamp()))})
        case "disabled":
            firebase.users.update({"localId": "u1", "disableUser": True})
        case "gone":
            firebase.users.delete({"localId": "u1"})
        case "future":
            clock.advance(timedelta(seconds=-60))
    with pytest.raises(NotSignedIn) as refused:
        identity.by_token(token)
    assert token not in str(refused.value)
    assert redact(f"so {token}") == "so ***"


CLAIMS = {
    "aud": PROJECT,
    "iss": f"https://securetoken.google.com/{PROJECT}",
    "sub": "u1",
    "iat": 1_781_524_800,
    "exp": 1_781_528_400,
    "auth_time": 1_781_524_800,
}


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "é" * 20,
        "x" * 9000,
        forged({**CLAIMS, "aud": "another-project"}),
        forged({**CLAIMS, "iss": "https://accounts.google.com"}),
        forged({**CLAIMS, "sub": ""}),
        forged({**CLAIMS, "sub": "s" * 200}),
        forged({**CLAIMS, "auth_time": None}),
        forged({**CLAIMS, "iat": True}),
        forged({k: v for k, v in CLAIMS.items() if k != "exp"}),
        forged([]),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_token_of_this_project_is_refused(firebase: FirebaseAuth, identity: Identity, token: str) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    with pytest.raises(NotSignedIn):
        identity.by_token(token)


def test_claims_of_the_token_are_not_believed(firebase: FirebaseAuth, identity: Identity) -> None:
    firebase.users.add("ops@example.com", "secret-one", uid="u1")
    person = identity.by_token(forged({**CLAIMS, "operator": True, "email": "boss@example.com"}))
    assert person.email == "ops@example.com"
    assert not person.operator


def test_unsigned_tokens_are_refused_where_no_emulator_is(
    firebase: FirebaseAuth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    token = firebase.users.token("u1")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    cloud = settings_module.read(
        {"K_SERVICE": "x", "DATABASE_URL": "postgresql://u@h/d", "GOOGLE_CLOUD_PROJECT": PROJECT}
    )
    from google.auth.credentials import AnonymousCredentials

    monkeypatch.setattr("google.auth.default", lambda *_, **__: (AnonymousCredentials(), PROJECT))
    with pytest.raises(NotSignedIn):
        Identity(cloud, clock).by_token(token)


def test_a_cookie_is_as_good_as_its_sign_in(firebase: FirebaseAuth, identity: Identity, clock: ManualClock) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    cookie = identity.cookie(firebase.users.token("u1", signed_in_ago=60), expires_in=timedelta(days=5))
    clock.advance(timedelta(days=4))
    assert identity.by_cookie(cookie).uid == "u1"
    with pytest.raises(NotSignedIn):
        identity.by_token(cookie)
    clock.advance(timedelta(days=1, seconds=11))
    with pytest.raises(NotSignedIn):
        identity.by_cookie(cookie)


def test_an_id_token_is_no_cookie_and_a_cookie_lasts_no_month(firebase: FirebaseAuth, identity: Identity) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    with pytest.raises(NotSignedIn):
        identity.by_cookie(firebase.users.token("u1"))
    with pytest.raises(ValueError, match="14 days"):
        identity.cookie(firebase.users.token("u1"), expires_in=timedelta(days=31))


@pytest.mark.parametrize(
    ("email", "claims", "verified", "said"),
    [
        ("ops@example.com", {}, True, "claim"),
        ("ops@example.com", {"operator": "yes"}, True, "claim"),
        ("else@example.com", {"operator": True}, True, "list"),
        ("ops@example.com", {"operator": True}, False, "verified"),
    ],
)
def test_an_operator_has_the_claim_and_stands_on_the_list_by_a_verified_address(
    firebase: FirebaseAuth, identity: Identity, email: str, claims: dict[str, Any], verified: bool, said: str
) -> None:
    firebase.users.add(email, "secret-one", uid="u1", verified=verified, **claims)
    with pytest.raises(NotAllowed, match=said) as refused:
        identity.require_operator(identity.by_token(firebase.users.token("u1")))
    assert "example.com" not in str(refused.value)


@pytest.mark.parametrize("claim", ["operator", "admin"])
def test_an_operator_is_named_by_address(firebase: FirebaseAuth, identity: Identity, claim: str) -> None:
    firebase.users.add("Ops@Example.com", "secret-one", uid="u1", **{claim: True})
    assert identity.require_operator(identity.by_token(firebase.users.token("u1"))) == "ops@example.com"


def test_without_firebase_it_is_unavailable_and_without_an_answer_tried_again(
    firebase: FirebaseAuth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    firebase.users.add("ann@example.com", "secret-one", uid="u1")
    token = firebase.users.token("u1")
    with pytest.raises(Unavailable, match="keeper up"):
        Identity(settings_module.read({}), clock).by_token(token)
    monkeypatch.setenv(VARIABLE, "127.0.0.1:9")
    with pytest.raises(Retry):
        Identity(settings_module.read({VARIABLE: "127.0.0.1:9"}), clock).by_token(token)


def test_now_is_the_tests_own(clock: ManualClock) -> None:
    assert clock.now() == datetime.fromtimestamp(CLAIMS["iat"], UTC)  # type: ignore[arg-type]
