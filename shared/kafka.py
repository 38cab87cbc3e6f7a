"""How a task finds a Kafka and says who it is. The client itself is a room's, loaded only where there is a Kafka."""

from dataclasses import dataclass
from typing import Literal

from shared.context import Context


@dataclass(frozen=True)
class KafkaParams:
    """`servers` is Kafka's own list of hosts and ports, empty where there is none; `mechanism` its name of how `user`
    proves itself. `ca` is the PEM text of whoever signed the brokers' certificates, empty for the system's authorities.
    """

    servers: str
    user: str
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    ca: str


def connection(ctx: Context, kafka: KafkaParams) -> dict[str, str]:
    """The part of a client's settings that every client of ours has. Raises Unavailable without the user's password.

    With a user the connection is SASL over verified TLS; without one it is plain, for a broker on a private network.
    """
    if not kafka.user:
        return {"bootstrap.servers": kafka.servers}
    return {
        "bootstrap.servers": kafka.servers,
        "security.protocol": "SASL_SSL",
        **({"ssl.ca.pem": kafka.ca} if kafka.ca else {}),
        "sasl.mechanisms": kafka.mechanism,
        "sasl.username": kafka.user,
        "sasl.password": ctx.secret("kafka-password"),
    }
