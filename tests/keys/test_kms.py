"""Both key encryption keys behind the one interface; Cloud KMS by its real client on its real protocol."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Retry, Unavailable
from shared.keys import kms
from shared.keys.cloud_kms import CloudKms
from shared.keys.keyring import Keyring
from shared.keys.kms import PURPOSE, Kms, Unreadable
from shared.keys.sealing import FORMATS, Sealed, identity_of
from tests.keys.kms_server import KEY, KmsServer, kms_server

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def server() -> Iterator[KmsServer]:
    with kms_server() as started:
        yield started


@pytest.fixture
def cloud(server: KmsServer) -> Iterator[CloudKms]:
    client, channel = server.client()
    yield CloudKms(client, KEY)
    channel.close()


@pytest.fixture(params=["keyring", "cloud"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Kms:
    return Keyring(tmp_path / "keyring") if request.param == "keyring" else request.getfixturevalue("cloud")


def test_what_was_wrapped_unwraps_and_names_its_version(either: Kms) -> None:
    wrapped, version = either.wrap(SECRET)
    assert SECRET not in wrapped
    assert (either.unwrap(wrapped), version) == (SECRET, either.primary())


def test_changed_bytes_do_not_unwrap(either: Kms) -> None:
    wrapped, _ = either.wrap(SECRET)
    with pytest.raises(Unreadable):
        either.unwrap(wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def test_an_older_version_goes_on_unwrapping_after_a_rotation(tmp_path: Path, server: KmsServer, cloud: Kms) -> None:
    ring = Keyring(tmp_path)
    for each, rotate in ((ring, ring.rotate), (cloud, lambda: server.versions.append(os.urandom(32)))):
        wrapped, first = each.wrap(SECRET)
        rotate()
        assert each.unwrap(wrapped) == SECRET
        assert each.wrap(SECRET)[1] == each.primary() != first


def test_requests_to_cloud_kms_bear_purpose_and_checksums(cloud: CloudKms, server: KmsServer) -> None:
    wrapped, _ = cloud.wrap(SECRET)
    cloud.unwrap(wrapped)
    encrypt, decrypt = server.requests
    assert (encrypt.name, encrypt.plaintext, encrypt.additional_authenticated_data) == (KEY, SECRET, PURPOSE)
    assert (decrypt.name, decrypt.ciphertext, decrypt.additional_authenticated_data) == (KEY, wrapped, PURPOSE)
    assert 0 not in (
        encrypt.plaintext_crc32c, encrypt.additional_authenticated_data_crc32c,
        decrypt.ciphertext_crc32c, decrypt.additional_authenticated_data_crc32c,
    )  # fmt: skip


@pytest.mark.parametrize("lie", ["ciphertext", "unverified", "plaintext"])
def test_what_was_changed_on_the_way_is_noticed_and_tried_again_later(
    cloud: CloudKms, server: KmsServer, lie: str
) -> None:
    wrapped, _ = cloud.wrap(SECRET)
    server.lie = lie
    with pytest.raises(Retry, match="CRC32C"):
        cloud.unwrap(wrapped) if lie == "plaintext" else cloud.wrap(SECRET)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, Unavailable),
        (grpc.StatusCode.FAILED_PRECONDITION, Unavailable),
        (grpc.StatusCode.INTERNAL, Retry),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Retry),
        (grpc.StatusCode.INVALID_ARGUMENT, Unreadable),
    ],
)
def test_each_refusal_of_cloud_kms_has_its_meaning(
    cloud: CloudKms, server: KmsServer, status: grpc.StatusCode, meaning: type[Exception]
) -> None:
    server.status, server.failures = status, -1
    with pytest.raises(meaning):
        cloud.unwrap(b"anything")


def test_a_moments_silence_of_cloud_kms_is_waited_out(cloud: CloudKms, server: KmsServer) -> None:
    server.status, server.failures = grpc.StatusCode.UNAVAILABLE, 1
    assert cloud.wrap(SECRET)[1].endswith("/1")
    assert len(server.requests) == 2


def test_no_location_is_unavailable_in_words() -> None:
    with pytest.raises(Unavailable, match="KEEPER_KEY_KEK"):
        kms.at("")


@settings(max_examples=50)
@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_sealed_value_opens_for_its_own_identity_alone(
    plain: bytes, account: str, provider: str, other: str, another: str
) -> None:
    aes = FORMATS["AES-256-GCM"]
    sealed = aes.seal(SECRET, plain, identity_of(account, provider))
    assert aes.open(SECRET, sealed, identity_of(account, provider)) == plain
    if (other, another) != (account, provider):
        with pytest.raises(Unreadable):
            aes.open(SECRET, sealed, identity_of(other, another))


def test_the_nonce_is_new_each_time() -> None:
    aes = FORMATS["AES-256-GCM"]
    assert len({aes.seal(SECRET, b"x", b"i").nonce for _ in range(100)}) == 100


def test_a_cut_or_foreign_ciphertext_does_not_open() -> None:
    for sealed in (Sealed(b"", b""), Sealed(b"n" * 12, b""), Sealed(b"n" * 12, b"c" * 16)):
        with pytest.raises(Unreadable):
            FORMATS["AES-256-GCM"].open(SECRET, sealed, b"i")


def test_a_keyrings_files_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "ring")
    ring.primary()
    assert (tmp_path / "ring").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ring" / "1").stat().st_mode & 0o077 == 0
