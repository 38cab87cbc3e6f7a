"""txoutbox and faststream-outbox, publishing to Pub/Sub with Google's own client as their users would."""

import asyncio
import json
import time
import uuid
from typing import Any

import asyncpg
from faststream_outbox import OutboxBroker, make_outbox_table
from google.cloud import pubsub_v1
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from txoutbox import OutboxMessage, Relay, RelayConfig
from txoutbox.adapters.postgres import PostgresStorage


def publisher(*, ordered: bool) -> pubsub_v1.PublisherClient:
    """The high-level client, on the emulator that PUBSUB_EMULATOR_HOST names."""
    options = pubsub_v1.types.PublisherOptions(enable_message_ordering=ordered)
    return pubsub_v1.PublisherClient(publisher_options=options)


def txoutbox(
    url: str, topic: str, payloads: list[dict[str, Any]], *, keys: int = 0, config: RelayConfig | None = None
) -> float:
    """Events a second that txoutbox relays; `keys` ordering keys, its default settings without a `config`."""
    return asyncio.run(_txoutbox(url, topic, payloads, keys, config or RelayConfig()))


async def _txoutbox(url: str, topic: str, payloads: list[dict[str, Any]], keys: int, config: RelayConfig) -> float:
    client = publisher(ordered=keys > 0)
    pool = await asyncpg.create_pool(url.replace("+pg8000", ""))
    storage = PostgresStorage(pool, table="txoutbox", strict_ordering=keys > 0)
    await storage.create_schema()
    await pool.execute("truncate txoutbox")
    rows = [
        (topic, f"k{n % keys}" if keys else None, json.dumps(payload).encode()) for n, payload in enumerate(payloads)
    ]
    await pool.copy_records_to_table("txoutbox", records=rows, columns=["topic", "key", "payload"])
    await pool.execute("analyze txoutbox")

    async def publish(message: OutboxMessage) -> None:
        event_id = json.loads(message.payload)["id"]
        future = client.publish(message.topic, message.payload, ordering_key=message.key or "", event_id=event_id)
        await asyncio.wrap_future(future)

    relay = Relay(storage, publish, config=config)
    began, done = time.perf_counter(), 0
    while done < len(payloads):
        done += (await relay.run_once()).published
    seconds = time.perf_counter() - began
    await pool.close()
    client.stop()
    return len(payloads) / seconds


def faststream(url: str, topic: str, payloads: list[dict[str, Any]]) -> float:
    """Events a second that faststream-outbox relays with eight workers and fetches of 500."""
    return asyncio.run(_faststream(url, topic, payloads))


async def _faststream(url: str, topic: str, payloads: list[dict[str, Any]]) -> float:
    client = publisher(ordered=False)
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name=f"faststream_{uuid.uuid4().hex[:8]}")
    engine = create_async_engine(url.replace("+pg8000", "+asyncpg"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    broker = OutboxBroker(engine, outbox_table=table, logger=None)
    finished, left = asyncio.Event(), len(payloads)

    @broker.subscriber("events", max_workers=8, fetch_batch_size=500)
    async def relay(body: dict[str, Any]) -> None:
        nonlocal left
        await asyncio.wrap_future(client.publish(topic, json.dumps(body).encode(), event_id=body["id"]))
        left -= 1
        if left == 0:
            finished.set()

    async with async_sessionmaker(engine)() as session, session.begin():
        for payload in payloads:
            await broker.publish(payload, queue="events", session=session)
    began = time.perf_counter()
    await broker.start()
    await finished.wait()
    seconds = time.perf_counter() - began
    await broker.stop()
    await engine.dispose()
    client.stop()
    return len(payloads) / seconds
