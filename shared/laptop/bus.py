"""The laptop's bus: Google's own Pub/Sub emulator where it is installed, else ours on PostgreSQL, behind one port.

Either is what PUBSUB_EMULATOR_HOST names, and the google-cloud-pubsub client cannot tell which. The emulator keeps
everything in memory, applies no filter, sends no deliveryAttempt, and never dead-letters an ordered subscription.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from google.api_core.exceptions import AlreadyExists
from google.protobuf import duration_pb2
from google.pubsub_v1 import PublisherClient, PushConfig, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from shared.laptop.bus_postgres import PostgresBus
from shared.laptop.ports import answers, free_ports
from shared.laptop.processes import Child, Part
from shared.manifest import Task, Topic

# Where Google's packages, its installer and Homebrew put the SDK.
_SDKS = ("/usr/lib/google-cloud-sdk", "~/google-cloud-sdk", "/opt/homebrew/share/google-cloud-sdk")


class Bus(Protocol):
    """A running bus on 127.0.0.1:`port`."""

    port: int

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Emulator:
    """What starts the official emulator: a Java and the SDK's jar."""

    java: str
    jar: Path


def find_emulator() -> Emulator | None:
    """The official emulator, when both its jar and a Java are installed."""
    java = shutil.which("java")
    gcloud = shutil.which("gcloud")
    sdks = [*([Path(gcloud).resolve().parent.parent] if gcloud else []), *(Path(sdk).expanduser() for sdk in _SDKS)]
    jars = [jar for sdk in sdks for jar in sorted(sdk.glob("platform/pubsub-emulator/lib/cloud-pubsub-emulator-*.jar"))]
    return Emulator(java, jars[-1]) if java and jars else None


class EmulatorBus:
    """The official emulator as a child process."""

    def __init__(self, found: Emulator, folder: Path, *, port: int | None = None) -> None:
        """Start it; its log and number are in `folder`. Raises NotStartedError."""
        self.port = next(free_ports(port))
        arguments = [found.java, "-Xmx256m", "-jar", str(found.jar), "--host=127.0.0.1", f"--port={self.port}"]
        self._child = Child.start("bus", arguments, folder=folder, env={"PATH": os.defpath})
        self._child.wait_until(lambda: answers(self.port))

    def stop(self) -> None:
        """End it, and with it every message it had."""
        self._child.stop()


def start(folder: Path, database_url: Callable[[], str], *, port: int | None = None) -> tuple[Bus, Part]:
    """The emulator where it is installed, else our bus on the database that `database_url` names when it is asked."""
    found = find_emulator()
    bus: Bus = EmulatorBus(found, folder, port=port) if found else PostgresBus(database_url(), port=port)
    what = f"Pub/Sub emulator ({found.jar.name})" if found else "bus on PostgreSQL (gcloud's emulator is not installed)"
    return bus, Part("bus", what, f"127.0.0.1:{bus.port}")


# --- topics and subscriptions of the tasks

# As terraform/topics.tf has them; tests/laptop holds the two equal.
MIN_BACKOFF_S, MAX_BACKOFF_S, MAX_ATTEMPTS = 10, 600, 10


@dataclass(frozen=True)
class Subscribed:
    """A task's subscription to a topic, by short names; without `endpoint` the task drains it itself."""

    name: str
    topic: str
    endpoint: str | None
    ack_deadline_s: int


def subscriptions_of(tasks: Mapping[str, Task], endpoint: Callable[[Task], str]) -> Iterator[Subscribed]:
    """A push subscription for each topic that triggers a task, a pull subscription for each other it subscribes to."""
    for task in tasks.values():
        pushed = [trigger.name for trigger in task.triggers if isinstance(trigger, Topic)]
        deadline = min(600, max(10, task.run.timeout_s))
        for topic in pushed:
            yield Subscribed(f"{task.slug}.{topic}", topic, endpoint(task), deadline)
        for topic in sorted(set(task.subscribes) - set(pushed)):
            yield Subscribed(f"{task.slug}.{topic}", topic, None, deadline)


def declare(port: int, project: str, tasks: Mapping[str, Task], endpoint: Callable[[Task], str]) -> None:
    """Make every topic and subscription of `tasks` on the bus at `port`, as terraform/topics.tf does in the cloud.

    Each subscription has a dead-letter topic with a subscription of its own, so that nothing is lost. What is there
    already stays, with whatever it still owes, and pushes to the endpoint given now.
    """
    topics, subscriptions = _clients(port)
    with topics, subscriptions:
        wanted = list(subscriptions_of(tasks, endpoint))
        published = {name for task in tasks.values() for name in task.publishes}
        for name in sorted(published | {subscribed.topic for subscribed in wanted}):
            _topic(topics, project, name)
        for subscribed in wanted:
            _subscribe(topics, subscriptions, project, subscribed)


def declare_topics(port: int, project: str, tasks: Mapping[str, Task]) -> None:
    """Make the topics `tasks` publish to, with nobody who listens: for who needs no more than a broker that takes."""
    topics, subscriptions = _clients(port)
    with topics, subscriptions:
        for name in sorted({name for task in tasks.values() for name in task.publishes}):
            _topic(topics, project, name)


def _topic(topics: PublisherClient, project: str, name: str) -> str:
    path: str = topics.topic_path(project, name)
    _unless_there(lambda: topics.create_topic(name=path))
    return path


def _subscribe(topics: PublisherClient, subscriptions: SubscriberClient, project: str, wanted: Subscribed) -> None:
    path = subscriptions.subscription_path(project, wanted.name)
    dead = _topic(topics, project, f"{wanted.name}.dead")
    parked = subscriptions.subscription_path(project, f"{wanted.name}.dead")
    _unless_there(lambda: subscriptions.create_subscription(name=parked, topic=dead))
    config = PushConfig(push_endpoint=wanted.endpoint or "")
    request = {
        "name": path,
        "topic": topics.topic_path(project, wanted.topic),
        "push_config": config,
        "ack_deadline_seconds": wanted.ack_deadline_s,
        "retry_policy": {
            "minimum_backoff": duration_pb2.Duration(seconds=MIN_BACKOFF_S),
            "maximum_backoff": duration_pb2.Duration(seconds=MAX_BACKOFF_S),
        },
        "dead_letter_policy": {"dead_letter_topic": dead, "max_delivery_attempts": MAX_ATTEMPTS},
    }
    _unless_there(lambda: subscriptions.create_subscription(request=request))
    subscriptions.modify_push_config(subscription=path, push_config=config)


def _unless_there(create: Callable[[], object]) -> None:
    try:
        create()
    except AlreadyExists:
        return


def _clients(port: int) -> tuple[PublisherClient, SubscriberClient]:
    """Google's clients on the bus at `port`, whatever PUBSUB_EMULATOR_HOST says."""
    target = f"127.0.0.1:{port}"
    return (
        PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(target))),
        SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(target))),
    )
