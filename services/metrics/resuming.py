"""A database that is older than what was published from it: its snapshots are taken back from their topic.

So it is after a restore, or where a new database is put under old topics. A service that numbered its snapshots
anew would be taken for a repeat of itself: readers drop what is not above the last sequence that they saw. On the
event clock nothing is needed, since the same boundaries give the same snapshots.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from services.metrics.store import QUERIES
from shared.contracts.snapshots import Snapshot
from shared.service import Context
from shared.settings import Settings
from shared.topics import SNAPSHOTS

LOOK_BACK = timedelta(minutes=10)
"""How far before the last boundary to begin reading: the broker's clock and ours may differ by as much."""
POLL_MS = 200
SILENCE_MS = 3_000
"""Nothing for that long, from a broker whose log ends cannot be believed, is the end."""
MOST_AT_ONCE = 500
log = structlog.get_logger()


async def take_back(context: Context) -> int:
    """Store the snapshots that the topic has and the database lacks, and go on counting above them.

    Returns how many there were: none, unless the database was restored or is new. Raises aiokafka's errors when
    the broker is away; what was taken back by then stays.
    """
    last_as_of = await context.pool.fetchval(QUERIES.read_last_as_of)
    since = None if last_as_of is None else datetime.fromtimestamp(last_as_of, UTC) - LOOK_BACK
    taken = 0
    portions = _published(context.settings, since)
    async with aclosing(portions):
        async for portion in portions:
            taken += await _store(context, portion)
    if taken:
        log.warning("the database was older than what is published from it: snapshots taken back", snapshots=taken)
    return taken


async def _store(context: Context, published: Sequence[Snapshot]) -> int:
    async with context.transaction() as effects:
        # No instance cuts a boundary meanwhile.
        await effects.connection.execute(QUERIES.lock_clock)
        rows = await effects.connection.fetch(QUERIES.read_latest_sequences)
        lost = lacking({row["model"]: row["sequence"] for row in rows}, published)
        if lost:
            newest = list({each.model: each for each in lost}.values())
            await effects.connection.execute(QUERIES.take_snapshots_back, *_columns(lost))
            await effects.connection.execute(QUERIES.resume_sequences, *_columns(newest)[:4])
            as_of = max(int(each.as_of.timestamp()) for each in lost)
            await effects.connection.execute(QUERIES.resume_clock, as_of)
    return len(lost)


def lacking(known: Mapping[str, int], published: Iterable[Snapshot]) -> list[Snapshot]:
    """The snapshots above the last sequence known of their model, each once, in their order."""
    found: dict[tuple[str, int], Snapshot] = {}
    for snapshot in published:
        if snapshot.sequence > known.get(snapshot.model, 0):
            found.setdefault((snapshot.model, snapshot.sequence), snapshot)
    return [found[key] for key in sorted(found)]


def _columns(snapshots: Sequence[Snapshot]) -> list[list[Any]]:
    return [
        [each.model for each in snapshots],
        [each.sequence for each in snapshots],
        [each.snapshot_id for each in snapshots],
        [each.as_of for each in snapshots],
        [each.to_json().decode() for each in snapshots],
    ]


async def _published(settings: Settings, since: datetime | None) -> AsyncGenerator[list[Snapshot]]:
    """What the topic has that was appended since a moment, or all of it; a model's snapshots in their order."""
    # Without a group it has every partition.
    reader = AIOKafkaConsumer(
        settings.topic_prefix + SNAPSHOTS.name,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-metrics-resuming",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        await reader.start()
        partitions = sorted(reader.assignment())
        await reader.seek_to_beginning()
        ends = await reader.end_offsets(partitions) if settings.kafka_true_end_offsets else None
        if ends is not None and since is not None:
            await _seek(reader, since, ends)
        silent = False
        while not (silent if ends is None else await _reached(reader, ends)):
            wait_ms = SILENCE_MS if ends is None else POLL_MS
            found = await reader.getmany(timeout_ms=wait_ms, max_records=MOST_AT_ONCE)
            silent = not found
            snapshots = [_snapshot(record.value) for records in found.values() for record in records]
            yield [snapshot for snapshot in snapshots if snapshot is not None]
    finally:
        await reader.stop()


async def _seek(reader: AIOKafkaConsumer, since: datetime, ends: Mapping[TopicPartition, int]) -> None:
    moments = dict.fromkeys(ends, int(since.timestamp() * 1000))
    for partition, first in (await reader.offsets_for_times(moments)).items():
        reader.seek(partition, ends[partition] if first is None else first.offset)


async def _reached(reader: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    return all([await reader.position(partition) >= end for partition, end in ends.items()])


def _snapshot(value: bytes | None) -> Snapshot | None:
    """What somebody else wrote to the topic is no snapshot of ours."""
    try:
        return Snapshot.model_validate_json(value or b"")
    except ValidationError:
        return None
