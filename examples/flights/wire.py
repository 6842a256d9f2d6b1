"""Kafka, as a client sees it: records in, records out. Nothing here is Trueward's own code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from examples.flights.stream import INPUT_TOPICS, Message, tick

TOPIC_PREFIX = "trueward."
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """A record that was read. ``topic`` is without the deployment's prefix."""

    topic: str
    document: Document


class Publisher:
    """Sends records; a call returns when the broker has all of them."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def send(self, messages: Iterable[Message]) -> None:
        """Publish the messages in their order (kept within a partition), all on their way at once."""
        sent = [
            await self._producer.send(TOPIC_PREFIX + message.topic, message.value, key=message.key)
            for message in messages
        ]
        await asyncio.gather(*sent)

    async def tick(self, moment: datetime) -> None:
        """Tell every partition of every input topic that event time has come to ``moment``."""
        value = tick(moment)
        sent = [
            await self._producer.send(topic, value, partition=partition)
            for topic in (TOPIC_PREFIX + name for name in INPUT_TOPICS)
            for partition in sorted(await self._producer.partitions_for(topic))
        ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def publisher(bootstrap_servers: str) -> AsyncIterator[Publisher]:
    """A publisher whose records are with all in-sync replicas when a call returns."""
    # A retried batch may arrive twice; Trueward drops repeats, and so idempotence is not asked of the broker.
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", max_batch_size=131_072)
    await producer.start()
    try:
        yield Publisher(producer)
    finally:
        await producer.stop()


@asynccontextmanager
async def subscription(
    bootstrap_servers: str, *topics: str, group: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of the topics, from their beginning; with a group, from what the group has committed."""
    consumer = AIOKafkaConsumer(
        *(TOPIC_PREFIX + topic for topic in topics),
        bootstrap_servers=bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
        fetch_max_wait_ms=250,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def heard(topic: str, value: bytes | None) -> Heard:
    """What a record of Trueward says."""
    return Heard(topic.removeprefix(TOPIC_PREFIX), json.loads(value or b"null"))


def encoded(document: Document) -> bytes:
    """A document as the topics carry it."""
    return json.dumps(document, separators=(",", ":")).encode()
