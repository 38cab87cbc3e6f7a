"""Names into judged addresses, many at once and none blocking: c-ares on its own thread, answers through a queue."""

import queue
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import pycares

from shared.addresses import Forbidden, Pin, Reach, pin

# c-ares tries twice, doubling: one lost packet is no outage (blackbox_exporter #1436).
_TRIES = 2

_WORDS = {
    pycares.errno.ARES_ENOTFOUND: "dns: no such name",
    pycares.errno.ARES_ENODATA: "dns: the name has no address",
    pycares.errno.ARES_ETIMEOUT: "dns: timeout",
    pycares.errno.ARES_ESERVFAIL: "dns: the server failed",
    pycares.errno.ARES_EREFUSED: "dns: the server refused",
    pycares.errno.ARES_ECONNREFUSED: "dns: no server reachable",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name led to: pins, or an error in words. `forbidden` when it has addresses, and none we may reach."""

    token: int
    pins: tuple[Pin, ...]
    error: str | None = None
    forbidden: bool = False


class Resolver:
    """Asks DNS; judges every answer. Close it, or use it in `with`."""

    def __init__(self, reach: Reach, *, timeout_s: float, servers: Iterable[str] = (), port: int | None = None) -> None:
        """`timeout_s` bounds one name in all. Without `servers` the machine's own are asked; `port` is theirs."""
        self._reach = reach
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._channel = pycares.Channel(
            # No search list: a name means the same everywhere, and "metadata" does not become metadata.google.internal.
            flags=pycares.ARES_FLAG_NOSEARCH,
            timeout=timeout_s / (2**_TRIES - 1),
            tries=_TRIES,
            lookups="b",  # DNS alone: what this machine's hosts file calls a name is nobody else's affair
            servers=list(servers) or None,
            udp_port=port,
            tcp_port=port,
        )

    def ask(self, host: str, token: int) -> None:
        """Ask for a name; its answer comes out of `answered` with `token`."""

        def done(found: pycares.AddrInfoResult | None, error: int | None) -> None:
            self._answers.put(self._judge(token, found, error))

        self._channel.getaddrinfo(host, None, family=socket.AF_UNSPEC, callback=done)

    def answered(self) -> list[Answer]:
        """The answers that came since; never waits."""
        found: list[Answer] = []
        while True:
            try:
                found.append(self._answers.get_nowait())
            except queue.Empty:
                return found

    def _judge(self, token: int, found: "pycares.AddrInfoResult | None", error: int | None) -> Answer:
        if error is not None or found is None:
            return Answer(token, (), _WORDS.get(error or 0, "dns: failed"))
        texts = [node.addr[0] for node in found.nodes]
        try:
            return Answer(token, pin((t.decode() if isinstance(t, bytes) else t for t in texts), self._reach))
        except Forbidden as refused:
            return Answer(token, (), str(refused), forbidden=True)

    def close(self) -> None:
        """Forget what is under way."""
        self._channel.close()

    def __enter__(self) -> "Resolver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
