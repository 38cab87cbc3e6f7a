"""Secrets: a folder only its owner reads, Secret Manager's requests, and what is said when there is none."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import secretmanager_v1

from shared.errors import Outcome, Retry, Unavailable
from shared.redaction import redact
from shared.secrets import LocalSecrets, Secret, SecretManager, Version, store
from tests.conftest import settings_for
from tests.shared.conftest import SLOT, MakeTask


def test_the_newest_version_is_the_latest_and_older_ones_stay(tmp_path: Path) -> None:
    local = LocalSecrets(tmp_path / "secrets")
    assert [local.add("stripe-key", f"value-{n}") for n in range(1, 12)] == [str(n) for n in range(1, 12)]
    assert (local.get("stripe-key"), local.get("stripe-key", "2")) == ("value-11", "value-2")


def test_only_the_owner_reads_a_secret(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    LocalSecrets(folder).add("stripe-key", "a value of a test")
    modes = {p.relative_to(tmp_path).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {"secrets": 0o700, "secrets/stripe-key": 0o700, "secrets/stripe-key/1": 0o600}


def test_versions_added_at_once_are_all_kept(tmp_path: Path) -> None:
    local = LocalSecrets(tmp_path)
    with ThreadPoolExecutor(8) as at_once:
        versions = list(at_once.map(lambda n: local.add("stripe-key", f"value-{n}"), range(40)))
    assert sorted(map(int, versions)) == list(range(1, 41))
    assert {local.get("stripe-key", v) for v in versions} == {f"value-{n}" for n in range(40)}


@pytest.mark.parametrize("version", ["latest", "7", "abc", "../other/1", "-1", ""])
def test_a_version_that_is_not_there_is_unavailable(tmp_path: Path, version: str) -> None:
    LocalSecrets(tmp_path).add("other", "a value of a test")
    with pytest.raises(Unavailable, match="stripe-key"):
        LocalSecrets(tmp_path).get("stripe-key", version)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b", "x" * 256])
def test_a_name_that_leaves_the_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="secret name"):
        LocalSecrets(tmp_path).get(name)


def test_a_secret_that_was_read_is_masked_everywhere(tmp_path: Path) -> None:
    local = LocalSecrets(tmp_path)
    (tmp_path / "pem").mkdir()
    (tmp_path / "pem" / "1").write_text('line "one"\nline/two=\n')
    local.get("pem")
    assert redact('said line "one"\nline/two=.') == "said ***."
    assert redact(r'{"said": "line \"one\"\nline/two="}') == '{"said": "***"}'


def test_nowhere_to_keep_secrets_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="KEEPER_SECRETS"):
        store(settings_for("postgresql://u@127.0.0.1/d"))


def test_a_task_without_its_secret_is_unavailable_and_says_which(make: MakeTask) -> None:
    result = make("ctx.secret('stripe-key')", extra="secrets: [stripe-key]").execute(SLOT)
    assert result.outcome is Outcome.UNAVAILABLE
    assert "stripe-key" in (result.error or "")


def test_a_task_reads_no_secret_it_does_not_declare(make: MakeTask) -> None:
    assert make("ctx.secret('stripe-key')").execute(SLOT).outcome is Outcome.FAILED


# --- Secret Manager


class Client(secretmanager_v1.SecretManagerServiceClient):
    """Google's client whose transport is answered here: what it would send is what is kept."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__(credentials=AnonymousCredentials())
        self.asked: list[Any] = []

        def answered(request: Any, **_: Any) -> Any:
            self.asked.append(request)
            return answer(request)

        transport = self._transport
        for method in (
            transport.access_secret_version, transport.add_secret_version, transport.list_secret_versions,
            transport.disable_secret_version, transport.enable_secret_version, transport.destroy_secret_version,
        ):  # fmt: skip
            transport._wrapped_methods[method] = answered


def failing(error: Exception) -> Callable[[Any], Any]:
    def answer(_request: Any) -> Any:
        raise error

    return answer


def test_a_secrets_version_is_asked_for_by_its_name() -> None:
    payload = secretmanager_v1.SecretPayload(data=b"a value from far away")
    client = Client(lambda request: secretmanager_v1.AccessSecretVersionResponse(payload=payload))
    assert SecretManager(client, "a-project").get("stripe-key", "3") == "a value from far away"
    assert client.asked[0].name == "projects/a-project/secrets/stripe-key/versions/3"
    assert redact("a value from far away") == "***"


def test_a_new_version_is_added_to_the_secret_and_its_number_is_told() -> None:
    made = "projects/1/secrets/stripe-key/versions/12"
    client = Client(lambda request: secretmanager_v1.SecretVersion(name=made))
    assert SecretManager(client, "a-project").add("stripe-key", "a new value") == "12"
    assert (client.asked[0].parent, client.asked[0].payload.data) == (
        "projects/a-project/secrets/stripe-key",
        b"a new value",
    )


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (exceptions.NotFound("no"), Unavailable),
        (exceptions.FailedPrecondition("disabled"), Unavailable),
        (exceptions.PermissionDenied("no"), Unavailable),
        (exceptions.ServiceUnavailable("later"), Retry),
        (exceptions.DeadlineExceeded("later"), Retry),
    ],
)
def test_secret_managers_refusals_end_in_our_words(error: Exception, meant: type[Exception]) -> None:
    with pytest.raises(meant, match="stripe-key"):
        SecretManager(Client(failing(error)), "a-project").get("stripe-key")


def test_versions_are_told_with_their_states_oldest_first() -> None:
    states = secretmanager_v1.SecretVersion.State
    found = [
        secretmanager_v1.SecretVersion(name=f"projects/1/secrets/stripe-key/versions/{number}", state=state)
        for number, state in ((10, states.ENABLED), (9, states.DISABLED), (2, states.DESTROYED))
    ]
    client = Client(lambda request: secretmanager_v1.ListSecretVersionsResponse(versions=found))
    assert SecretManager(client, "a-project").versions("stripe-key") == [
        Version(2, "destroyed"), Version(9, "disabled"), Version(10, "enabled"),
    ]  # fmt: skip
    assert client.asked[0].parent == "projects/a-project/secrets/stripe-key"


def test_a_version_is_disabled_enabled_and_destroyed_by_its_name() -> None:
    client = Client(lambda request: secretmanager_v1.SecretVersion())
    manager = SecretManager(client, "a-project")
    for act in (manager.disable, manager.enable, manager.destroy):
        act("stripe-key", 4)
    assert [type(request).__name__ for request in client.asked] == [
        "DisableSecretVersionRequest", "EnableSecretVersionRequest", "DestroySecretVersionRequest",
    ]  # fmt: skip
    assert {request.name for request in client.asked} == {"projects/a-project/secrets/stripe-key/versions/4"}


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (exceptions.NotFound("no"), Unavailable),
        (exceptions.PermissionDenied("no"), Unavailable),
        (exceptions.ServiceUnavailable("later"), Retry),
    ],
)
def test_what_may_not_be_changed_ends_in_our_words(error: Exception, meant: type[Exception]) -> None:
    manager = SecretManager(Client(failing(error)), "a-project")
    for change in (lambda: manager.add("stripe-key", "a new value"), lambda: manager.disable("stripe-key", 1)):
        with pytest.raises(meant, match="stripe-key"):
            change()


def test_a_disabled_version_cannot_be_read_until_it_is_enabled_and_a_destroyed_one_never(tmp_path: Path) -> None:
    local = LocalSecrets(tmp_path)
    for value in ("the first value", "the second value"):
        local.add("stripe-key", value)
    local.disable("stripe-key", 1)
    with pytest.raises(Unavailable):
        local.get("stripe-key", "1")
    local.enable("stripe-key", 1)
    assert local.get("stripe-key", "1") == "the first value"
    for _ in range(2):
        local.destroy("stripe-key", 1)
    assert [v.state for v in local.versions("stripe-key")] == ["destroyed", "enabled"]
    assert "first" not in "".join(f.read_text() for f in tmp_path.rglob("*") if f.is_file())
    assert local.add("stripe-key", "the third value") == "3"


def test_only_versions_older_than_the_one_in_use_are_set_aside(tmp_path: Path) -> None:
    one = Secret("stripe-key", LocalSecrets(tmp_path))
    assert [one.add(f"value number {n}") for n in range(1, 5)] == [1, 2, 3, 4]
    assert (one.set_older(3, "disabled"), one.set_older(3, "disabled"), one.newest()) == (2, 0, 4)
    assert one.set_older(3, "destroyed") == 2
    assert [v.state for v in one.store.versions("stripe-key")] == ["destroyed", "destroyed", "enabled", "enabled"]
