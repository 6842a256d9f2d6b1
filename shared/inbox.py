"""The fence: each record of each partition is taken in exactly once, in order, by one transaction.

The inbox row of a partition names the next record to take. A batch locks the rows of its partitions, drops
what was taken before, and advances them in its own transaction; Kafka's committed offset may lag behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.database import Connection, Queries, connect
from shared.records import Place, Record, Records, Run

QUERIES = Queries.load("shared", "kernel.sql")


@dataclass(frozen=True, slots=True)
class Gap:
    """A batch begins above the record that comes next: it is refused until the broker proves to hold none."""

    place: Place
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What of a batch may be taken: new records, how many repeats were dropped, and the gaps refused."""

    records: Records
    repeats: Mapping[Place, int]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Advance:
    """Where a partition stands after a batch."""

    place: Place
    next_offset: int
    log_end_offset: int | None = None
    received_at: datetime | None = None
    lost_records: int = 0


def admit(records: Sequence[Record], next_offsets: Mapping[Place, int], proven: Mapping[Place, Gap]) -> Admission:
    """Drop what was taken before; refuse a partition whose batch begins above its next record.

    ``proven`` are gaps that the broker has shown to be its own: asked for the missing records, it gave the same
    later one again (transaction markers, compaction, retention).
    """
    taken: list[Run] = []
    repeats: dict[Place, int] = {}
    gaps: dict[Place, Gap] = {}
    arrived = records if isinstance(records, Records) else Records.of(records)
    reached = dict(next_offsets)
    for run in arrived.runs:
        place, expected = run.place, reached[run.place]
        if place in gaps:
            continue
        new = run.since(expected)
        if len(new) < len(run):
            repeats[place] = repeats.get(place, 0) + len(run) - len(new)
        elif new.first_offset > expected:
            gap = Gap(place, expected, new.first_offset)
            if proven.get(place) != gap:
                gaps[place] = gap
                continue
        if len(new):
            taken.append(new)
            reached[place] = new.next_offset
    return Admission(Records(taken) if repeats or gaps else arrived, repeats, tuple(gaps.values()))


async def lock(connection: Connection, places: Iterable[Place]) -> dict[Place, int]:
    """Lock the partitions' rows until the transaction ends; returns the next offset of each."""
    topics, partitions = _columns(places)
    rows = await connection.fetch(QUERIES.lock_inbox_rows, topics, partitions)
    if len(rows) < len(topics):
        await connection.execute(QUERIES.ensure_inbox_rows, topics, partitions)
        rows = await connection.fetch(QUERIES.lock_inbox_rows, topics, partitions)
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def next_offsets(connection: Connection) -> dict[Place, int]:
    """Where every partition stands, without locking."""
    rows = await connection.fetch(QUERIES.read_inbox)
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def advance(connection: Connection, advances: Sequence[Advance]) -> None:
    """Move the locked rows on; durable together with everything else that the transaction did."""
    topics, partitions = _columns(moved.place for moved in advances)
    await connection.execute(
        QUERIES.advance_inbox_rows,
        topics,
        partitions,
        [moved.next_offset for moved in advances],
        [moved.log_end_offset for moved in advances],
        [moved.received_at for moved in advances],
        [moved.lost_records for moved in advances],
    )


def _columns(places: Iterable[Place]) -> tuple[list[str], list[int]]:
    pairs = list(places)
    return [topic for topic, _ in pairs], [partition for _, partition in pairs]


async def reset(dsn: str, *, service: str, topic: str | None = None) -> int:
    """Forget how far ``service`` has read (one topic, or all): it starts at the topics' beginnings.

    The way out after a topic was recreated. Returns how many partitions were forgotten.
    """
    connection = await connect(dsn, role=service, application_name="trueward-inbox-reset")
    try:
        async with connection.transaction():
            status = await connection.execute(QUERIES.reset_inbox, topic)
            await connection.execute(QUERIES.forget_refusals, topic)
            await connection.execute(QUERIES.forget_topic_identities, topic)
    finally:
        await connection.close()
    return _count(status)


async def adopt(dsn: str, *, service: str, topic: str | None = None) -> int:
    """Take the topics that the broker has now for those that ``service`` has read (one topic, or all).

    Right where a log was carried over with its offsets, so that only its id is new. Returns how many ids were
    forgotten; the service remembers those that it finds at its next start.
    """
    connection = await connect(dsn, role=service, application_name="trueward-inbox-adopt")
    try:
        status = await connection.execute(QUERIES.forget_topic_identities, topic)
    finally:
        await connection.close()
    return _count(status)


def _count(status: str) -> int:
    return int(status.rsplit(maxsplit=1)[-1])


async def reset_all(dsn: str) -> int:
    """Forget how far every service has read: right when the broker itself lost everything."""
    return sum([await reset(dsn, service=service) for service in ("metrics", "alerting", "retrain")])
