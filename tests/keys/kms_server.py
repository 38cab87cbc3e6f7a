"""Cloud KMS over its real wire protocol: one key with versions, checksums answered, and lies told on demand."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1

from shared.laptop.ports import free_ports

KEY = "projects/p/locations/europe-west1/keyRings/groundskeeper/cryptoKeys/kek"
NONCE = b"twelve bytes"


class KmsServer:
    """Answers Encrypt, Decrypt and GetCryptoKey for KEY."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.versions = [AESGCM.generate_key(256)]
        self.status = grpc.StatusCode.OK
        self.failures = 0
        """How many requests are refused with `status` before one is answered; below 0: every one."""
        self.lie = ""
        """What is answered wrongly: ciphertext, plaintext, or unverified."""
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        methods = {
            "Encrypt": (self._encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
            "Decrypt": (self._decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
            "GetCryptoKey": (self._key, kms_v1.GetCryptoKeyRequest, kms_v1.CryptoKey),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                method, request_deserializer=asked.deserialize, response_serializer=answered.serialize
            )
            for name, (method, asked, answered) in methods.items()
        }
        service = "google.cloud.kms.v1.KeyManagementService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        for port in free_ports():
            if self._server.add_insecure_port(f"127.0.0.1:{port}"):
                self.port = port
                break
        self._server.start()

    def client(self) -> tuple[kms_v1.KeyManagementServiceClient, grpc.Channel]:
        """Google's own client on this server, and its channel to close."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        transport = kms_v1.services.key_management_service.transports.KeyManagementServiceGrpcTransport(channel=channel)
        return kms_v1.KeyManagementServiceClient(transport=transport), channel

    def _taken(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        if self.failures:
            self.failures -= 1
            context.abort(self.status, "as told")
        if request.name != KEY:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")

    def _encrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._taken(request, context)
        version = len(self.versions)
        sealed = AESGCM(self.versions[-1]).encrypt(NONCE, request.plaintext, request.additional_authenticated_data)
        sealed = bytes([version]) + sealed
        return kms_v1.EncryptResponse(
            name=f"{KEY}/cryptoKeyVersions/{version}",
            ciphertext=sealed[:-1] + b"?" if self.lie == "ciphertext" else sealed,
            ciphertext_crc32c=google_crc32c.value(sealed),
            verified_plaintext_crc32c=self.lie != "unverified"
            and request.plaintext_crc32c == google_crc32c.value(request.plaintext),
            verified_additional_authenticated_data_crc32c=request.additional_authenticated_data_crc32c
            == google_crc32c.value(request.additional_authenticated_data),
        )

    def _decrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._taken(request, context)
        if request.ciphertext_crc32c != google_crc32c.value(request.ciphertext):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "checksum")
        try:
            key = AESGCM(self.versions[request.ciphertext[0] - 1])
            plain = key.decrypt(NONCE, request.ciphertext[1:], request.additional_authenticated_data)
        except (InvalidTag, IndexError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        answer = plain[:-1] + b"?" if self.lie == "plaintext" else plain
        return kms_v1.DecryptResponse(plaintext=answer, plaintext_crc32c=google_crc32c.value(plain))

    def _key(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._taken(request, context)
        primary = kms_v1.CryptoKeyVersion(name=f"{KEY}/cryptoKeyVersions/{len(self.versions)}")
        return kms_v1.CryptoKey(name=KEY, primary=primary)

    def stop(self) -> None:
        self._server.stop(grace=None).wait()


@contextmanager
def kms_server() -> Iterator[KmsServer]:
    server = KmsServer()
    try:
        yield server
    finally:
        server.stop()
