"""From events to parcels: what travels together."""

from collections.abc import Collection, Iterator, Sequence

from shared.relay.event import Broker, Event, Parcel


def pack(events: Sequence[Event], broker: Broker, alone: Collection[str], number: Iterator[int]) -> Iterator[Parcel]:
    """The events as parcels, of each topic and key in their order, as full as the broker allows.

    What failed before, and the ids in `alone`, travel each by itself, so that only the guilty fails again.
    """
    lanes: dict[tuple[str, str | None], list[Event]] = {}
    for event in events:
        lanes.setdefault((event.topic, event.key), []).append(event)
    for lane in lanes.values():
        batch: list[Event] = []
        size = 0
        for event in lane:
            single = event.attempts > 0 or event.id in alone
            if batch and (single or len(batch) == broker.most_events or size + event.size > broker.most_bytes):
                yield Parcel(next(number), batch, size)
                batch, size = [], 0
            if single:
                yield Parcel(next(number), [event], event.size)
            else:
                batch.append(event)
                size += event.size
        if batch:
            yield Parcel(next(number), batch, size)
