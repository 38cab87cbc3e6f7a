"""How a credential is sealed: AES-256-GCM, with the row's identity as associated data.

A ciphertext put into another account's or provider's row does not open there. The name in
data_encryption_key.algorithm chooses the format, so a platform that has one of its own adds it to FORMATS, gives its
old keys that name, and the next rotation re-encrypts its rows.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.keys.kms import Unreadable

KEY_BYTES = 32
# Random nonces of 96 bits; 2^32 seals with one key keep a repetition below 2^-32 (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Sealed:
    """A sealed value as a row keeps it."""

    nonce: bytes
    ciphertext: bytes


class Format(Protocol):
    """One way to seal with a key of KEY_BYTES bytes."""

    def seal(self, key: bytes, plain: bytes, identity: bytes) -> Sealed: ...

    def open(self, key: bytes, sealed: Sealed, identity: bytes) -> bytes:
        """The value again. Raises Unreadable."""
        ...


class AesGcm:
    """AES-256-GCM; the tag is the ciphertext's last 16 bytes."""

    def seal(self, key: bytes, plain: bytes, identity: bytes) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(nonce, AESGCM(key).encrypt(nonce, plain, identity))

    def open(self, key: bytes, sealed: Sealed, identity: bytes) -> bytes:
        try:
            return AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, identity)
        except (InvalidTag, ValueError):
            raise Unreadable("a credential does not open: another key, another row, or changed bytes") from None


ALGORITHM = "AES-256-GCM"
FORMATS: Mapping[str, Format] = {ALGORITHM: AesGcm()}


def identity_of(account_id: str, provider: str) -> bytes:
    """What a credential is bound to. Each part with its length, so that no two rows have the same bytes."""
    parts = (b"integration_credential", account_id.encode(), provider.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
