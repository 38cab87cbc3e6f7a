"""A versioned keyring in a folder: what stands for Cloud KMS on a laptop and in tests. Not for production."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import Unavailable
from shared.keys.kms import PURPOSE, Unreadable

_NONCE = 12


class Keyring:
    """`folder`/<version>: 32 bytes as hexadecimal text, readable by the owner alone; the highest is primary."""

    def __init__(self, folder: Path) -> None:
        """An empty keyring gets its first version when it is first asked to wrap."""
        self._folder = folder

    def _versions(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(file.name) for file in self._folder.iterdir() if file.name.isdecimal())

    def _key(self, version: int) -> AESGCM:
        try:
            return AESGCM(bytes.fromhex((self._folder / str(version)).read_text(encoding="ascii")))
        except FileNotFoundError:
            raise Unavailable(f"version {version} of the local keyring is gone: restore the file from a copy") from None

    def rotate(self) -> str:
        """Add a version, which becomes primary; its name. The older ones go on unwrapping."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, whole = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(os.urandom(32).hex())
        number = (self._versions() or [0])[-1] + 1
        with suppress(FileExistsError):  # somebody else made this version meanwhile: theirs is as good
            os.link(whole, self._folder / str(number))
        os.unlink(whole)
        return f"local/{number}"

    def primary(self) -> str:
        if not self._versions():
            self.rotate()
        return f"local/{self._versions()[-1]}"

    def wrap(self, key: bytes) -> tuple[bytes, str]:
        name = self.primary()
        version = int(name.removeprefix("local/"))
        nonce = os.urandom(_NONCE)
        return version.to_bytes(4, "big") + nonce + self._key(version).encrypt(nonce, key, PURPOSE), name

    def unwrap(self, wrapped: bytes) -> bytes:
        version, nonce, sealed = int.from_bytes(wrapped[:4], "big"), wrapped[4 : 4 + _NONCE], wrapped[4 + _NONCE :]
        try:
            return self._key(version).decrypt(nonce, sealed, PURPOSE)
        except (InvalidTag, ValueError):
            raise Unreadable("a wrapped key does not open: its bytes changed, or the keyring is another one") from None
