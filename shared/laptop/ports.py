"""Ports of 127.0.0.1 for servers of the laptop."""

import random
import socket
from collections.abc import Iterator
from contextlib import suppress

# Above these, systems hand out ports for outgoing connections, which would now and then be taken.
PORTS = range(20000, 32000)


def free_ports(wish: int | None = None) -> Iterator[int]:
    """Ports nobody listens on at this moment, `wish` first; whoever binds one tries the next when it was too late."""
    candidates = random.sample(PORTS, 200)
    for port in [wish, *candidates] if wish else candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                probe.close()
                yield port


def answers(port: int) -> bool:
    """Whether somebody accepts connections on `port`."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
