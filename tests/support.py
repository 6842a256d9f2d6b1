"""Helpers that drive the real machinery from a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from shared.consumer import Consumer
from shared.contracts.base import Contract, canonical_json
from shared.database import connect_pool
from shared.effects import Handler
from shared.records import Record
from shared.settings import Settings
from shared.topics import Service, Topic

RECEIVED_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FixedClock:
    """A clock that stands still."""

    moment: datetime = RECEIVED_AT

    def now(self) -> datetime:
        return self.moment


@dataclass(frozen=True)
class Emitted:
    """An event in a service's outbox."""

    topic: str
    key: bytes | None
    value: bytes
    headers: dict[str, str]


class Feed:
    """Makes records with consecutive offsets, as a topic would hold them."""

    def __init__(self, received_at: datetime = RECEIVED_AT) -> None:
        self._offsets: dict[tuple[str, int], itertools.count[int]] = {}
        self._received_at = received_at

    def record(
        self,
        topic: Topic,
        value: Contract | dict[str, object] | bytes | None,
        *,
        partition: int = 0,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        received_at: datetime | None = None,
    ) -> Record:
        """The next record of a partition."""
        offsets = self._offsets.setdefault((topic.name, partition), itertools.count())
        if isinstance(value, Contract):
            value = value.to_json()
        elif isinstance(value, dict):
            value = canonical_json(value)
        return Record(
            topic.name, partition, next(offsets), received_at or self._received_at, key, value, tuple(headers)
        )


def make_consumer(
    handler: Handler,
    pool: asyncpg.Pool[asyncpg.Record],
    *,
    service: Service,
    now: datetime = RECEIVED_AT,
    **more: Any,
) -> Consumer:
    """A consumer without Kafka: the real inbox, transactions and outbox; ``more`` are settings."""
    return Consumer(service=service, settings=Settings(**more), pool=pool, clock=FixedClock(now), handler=handler)


async def apply(
    handler: Handler, records: Iterable[Record], dsn: str, *, service: Service, now: datetime = RECEIVED_AT
) -> list[Emitted]:
    """Take records in as one batch, in a real transaction; returns what the outbox holds and empties it."""
    pool = await connect_pool(dsn, role=service, application_name="test", max_size=2)
    try:
        await make_consumer(handler, pool, service=service, now=now).take(list(records), {})
        return await drain_outbox(pool)
    finally:
        await pool.close()


async def drain_outbox(pool: asyncpg.Pool[asyncpg.Record]) -> list[Emitted]:
    """What the outbox holds, in order of emission; it is empty afterwards."""
    rows = await pool.fetch("DELETE FROM outbox RETURNING id, topic, key, value, headers")
    return [
        Emitted(row["topic"], row["key"], row["value"], dict(row["headers"]))
        for row in sorted(rows, key=lambda row: row["id"])
    ]
