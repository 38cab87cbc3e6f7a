"""The laptop's Firebase Auth as a browser and an administrator call it; its words are Google's published ones."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from shared.laptop.firebase import FirebaseAuth
from shared.laptop.firebase_schema import Unpublished, check_answer, check_request, methods
from tests.conftest import ManualClock

PROJECT = "demo-groundskeeper"
OWNER = {"Authorization": "Bearer owner"}


@pytest.fixture
def firebase(clock: ManualClock) -> Iterator[FirebaseAuth]:
    server = FirebaseAuth(PROJECT, clock)
    yield server
    server.stop()


def call(firebase: FirebaseAuth, method: str, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
    url = f"http://{firebase.host}/identitytoolkit.googleapis.com/v1/{method}?key=any"
    answer = requests.post(url, json=body, headers=headers, timeout=5)
    return answer.status_code, answer.json()


def signed_up(firebase: FirebaseAuth) -> dict[str, Any]:
    given = {"email": "Ann@example.com", "password": "secret-one", "returnSecureToken": True}
    status, session = call(firebase, "accounts:signUp", **given)
    assert status == 200
    return dict(session)


def test_people_sign_up_sign_in_and_out_of_existence(firebase: FirebaseAuth) -> None:
    session = signed_up(firebase)
    status, again = call(firebase, "accounts:signInWithPassword", email="ann@example.com", password="secret-one")
    assert (status, again["localId"]) == (200, session["localId"])
    status, found = call(firebase, "accounts:lookup", idToken=again["idToken"])
    assert found["users"][0]["email"] == "ann@example.com"
    assert call(firebase, "accounts:delete", idToken=again["idToken"])[0] == 200
    status, refused = call(firebase, "accounts:lookup", idToken=again["idToken"])
    assert (status, refused["error"]["message"]) == (400, "USER_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        ("accounts:signInWithPassword", {"email": "ann@example.com", "password": "wrong-one"}, "INVALID_LOGIN"),
        ("accounts:signInWithPassword", {"email": "bob@example.com", "password": "wrong-one"}, "INVALID_LOGIN"),
        ("accounts:signUp", {"email": "ANN@example.com", "password": "secret-one"}, "EMAIL_EXISTS"),
        ("accounts:signUp", {"email": "bob@example.com", "password": "short"}, "WEAK_PASSWORD"),
        ("accounts:lookup", {"idToken": "nonsense"}, "INVALID_ID_TOKEN"),
        ("accounts:signUp", {"emial": "bob@example.com"}, 'Unknown name "emial"'),
        ("accounts:signUp", {"email": 7}, "Invalid value at 'email'"),
    ],
)
def test_what_the_service_refuses_is_refused_in_its_words(
    firebase: FirebaseAuth, method: str, body: dict[str, Any], code: str
) -> None:
    signed_up(firebase)
    status, answer = call(firebase, method, **body)
    assert status == 400
    assert code in answer["error"]["message"]


def test_only_an_administrator_does_as_one(firebase: FirebaseAuth) -> None:
    path = f"projects/{PROJECT}/accounts:delete"
    uid = signed_up(firebase)["localId"]
    assert call(firebase, path, localId=uid)[0] == 401
    assert firebase.users.has(uid)
    assert call(firebase, path, OWNER, localId=uid)[0] == 200
    assert not firebase.users.has(uid)


def test_a_refresh_token_gives_new_tokens_until_it_is_revoked(firebase: FirebaseAuth, clock: ManualClock) -> None:
    session = signed_up(firebase)
    url = f"http://{firebase.host}/securetoken.googleapis.com/v1/token?key=any"
    form = {"grant_type": "refresh_token", "refresh_token": session["refreshToken"]}
    answer = requests.post(url, data=form, timeout=5)
    assert answer.json()["user_id"] == session["localId"]
    later = str(int(clock.now().timestamp()) + 1)
    call(firebase, f"projects/{PROJECT}/accounts:update", OWNER, localId=session["localId"], validSince=later)
    answer = requests.post(url, data=form, timeout=5)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "TOKEN_EXPIRED")


def test_a_page_of_another_address_may_ask(firebase: FirebaseAuth) -> None:
    answer = requests.options(f"http://{firebase.host}/identitytoolkit.googleapis.com/v1/accounts:signUp", timeout=5)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (204, "*")


def test_what_google_does_not_publish_is_neither_taken_nor_said() -> None:
    assert len(methods()) == 12
    with pytest.raises(Unpublished):
        check_request("accounts.delete", {"user": "u1"})
    with pytest.raises(Unpublished):
        check_answer("accounts.signUp", {"token": "t"})
    check_answer("accounts.lookup", {"users": [{"localId": "u1", "createdAt": "1781524800000", "disabled": False}]})
