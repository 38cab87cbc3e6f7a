"""The key encryption key (KEK) behind one interface: Cloud KMS, or a versioned keyring in a folder on a laptop."""

from pathlib import Path
from typing import Protocol

from shared.errors import Unavailable


class Unreadable(ValueError):
    """What was sealed does not open: another key, another identity, or changed bytes. The message names no content."""


class Kms(Protocol):
    """One KEK with versions: the primary one wraps, every one that is not destroyed unwraps.

    Each method raises Retry when the service does not answer, and Unavailable when it refuses or lacks the key.
    """

    def primary(self) -> str:
        """The name of the version that wraps now."""
        ...

    def wrap(self, key: bytes) -> tuple[bytes, str]:
        """`key` encrypted, and the version that did it."""
        ...

    def unwrap(self, wrapped: bytes) -> bytes:
        """The key again. Raises Unreadable."""
        ...


# Bound to every wrapped key, so that what the KEK wraps for another purpose is never taken for one of ours.
PURPOSE = b"groundskeeper data_encryption_key"


def at(location: str) -> Kms:
    """The KEK at `location`: projects/P/locations/L/keyRings/R/cryptoKeys/K, or a keyring's folder.

    Raises Unavailable where there is none.
    """
    if not location:
        raise Unavailable("no key encryption key: set KEEPER_KEY_KEK to a Cloud KMS key's name or a keyring's folder")
    if location.startswith("projects/"):
        from shared.keys.cloud_kms import CloudKms, client  # a third of a second to load, and a laptop needs none of it

        return CloudKms(client(), location)
    from shared.keys.keyring import Keyring

    return Keyring(Path(location))
