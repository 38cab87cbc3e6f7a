"""The key encryption key in Cloud KMS, every request and answer checked by CRC32C.

https://cloud.google.com/kms/docs/data-integrity-guidelines
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import google_crc32c

from shared.errors import Retry, Unavailable
from shared.keys.kms import PURPOSE, Unreadable

if TYPE_CHECKING:
    from google.cloud.kms_v1 import KeyManagementServiceClient

_TIMEOUT_S = 20.0


@functools.cache
def client() -> "KeyManagementServiceClient":
    """One client a process: making it costs more than using it."""
    from google.cloud import kms_v1

    return kms_v1.KeyManagementServiceClient()


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


class CloudKms:
    """One CryptoKey, by its full resource name."""

    def __init__(self, kms: "KeyManagementServiceClient", name: str) -> None:
        self._kms, self._name = kms, name

    def primary(self) -> str:
        key = _answer(self._kms.get_crypto_key, {"name": self._name})
        if not key.primary.name:
            raise Unavailable(f"KMS key {self._name} has no enabled primary version: enable one")
        return str(key.primary.name)

    def wrap(self, key: bytes) -> tuple[bytes, str]:
        request = {
            "name": self._name,
            "plaintext": key,
            "plaintext_crc32c": _crc(key),
            "additional_authenticated_data": PURPOSE,
            "additional_authenticated_data_crc32c": _crc(PURPOSE),
        }
        sealed = _answer(self._kms.encrypt, request)
        whole = (
            sealed.verified_plaintext_crc32c
            and sealed.verified_additional_authenticated_data_crc32c
            and sealed.ciphertext_crc32c == _crc(sealed.ciphertext)
        )
        if not whole:
            raise Retry("what went to or came from Cloud KMS was changed on the way (CRC32C)")
        return bytes(sealed.ciphertext), str(sealed.name)

    def unwrap(self, wrapped: bytes) -> bytes:
        request = {
            "name": self._name,
            "ciphertext": wrapped,
            "ciphertext_crc32c": _crc(wrapped),
            "additional_authenticated_data": PURPOSE,
            "additional_authenticated_data_crc32c": _crc(PURPOSE),
        }
        opened = _answer(self._kms.decrypt, request)
        if opened.plaintext_crc32c != _crc(opened.plaintext):
            raise Retry("what came from Cloud KMS was changed on the way (CRC32C)")
        return bytes(opened.plaintext)


def _answer(method: Callable[..., Any], request: dict[str, Any]) -> Any:
    from google.api_core import exceptions, retry

    again = retry.Retry(
        predicate=retry.if_exception_type(exceptions.ServiceUnavailable), initial=0.2, maximum=2.0, timeout=_TIMEOUT_S
    )
    try:
        return method(request=request, timeout=_TIMEOUT_S, retry=again)
    except exceptions.InvalidArgument:
        raise Unreadable("Cloud KMS does not open a wrapped key: its bytes changed, or another key made it") from None
    except (exceptions.PermissionDenied, exceptions.NotFound, exceptions.FailedPrecondition):
        raise Unavailable(
            f"KMS key {request['name']} may not be used by this task, is not there, or its version is disabled: "
            "apply terraform, and look at the key's versions"
        ) from None
    except (exceptions.ServerError, exceptions.RetryError, exceptions.TooManyRequests):
        raise Retry("Cloud KMS does not answer") from None
