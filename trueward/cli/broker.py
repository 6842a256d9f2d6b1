"""Talking to Kafka from a command that ends: errors of a broker that is away become one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.broker import make_producer
from shared.errors import UsageError
from shared.settings import Settings
from shared.topics import Topic
from trueward.cli.connection import AwayError
from trueward.cli.lines import Keyed

PORTION = 5_000
"""Records in flight at once: enough to fill the producer's batches, few enough to hold in memory."""
CONNECT_SECONDS = 10
POLL_MS = 200
IDLE_MS = 2_000


def quiet() -> None:
    """Aiokafka logs each lost connection; a command says it once, in its own words."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextmanager
def one_line(settings: Settings, so_far: Callable[[], str] = str) -> Iterator[None]:
    """Turn aiokafka's errors into an ``AwayError``; ``so_far`` says what had been done by then."""
    try:
        yield
    except BrokenPipeError:
        raise  # our reader went away, not the broker
    except (KafkaError, TimeoutError, OSError) as error:
        said = str(error) or type(error).__name__
        away = f"Kafka at {settings.kafka_bootstrap_servers} does not answer ({said})"
        raise AwayError("; ".join(filter(None, (away, so_far())))) from error


async def partitions_of(settings: Settings, topics: Collection[Topic]) -> dict[str, list[int]]:
    """The partitions that the broker has of each topic (by registry name); a topic that it lacks is left out."""
    full_names = {settings.topic_prefix + topic.name: topic.name for topic in topics}
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, client_id="trueward-cli")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await admin.start()
            existing = set(await admin.list_topics()) & set(full_names)
            described = await admin.describe_topics(sorted(existing)) if existing else []
    finally:
        await admin.close()
    return {
        full_names[found["topic"]]: sorted(partition["partition"] for partition in found["partitions"])
        for found in described
    }


async def existing(settings: Settings, topics: Collection[Topic]) -> dict[str, list[int]]:
    """As ``partitions_of``. Raises ``UsageError`` for a topic that the broker lacks."""
    partitions = await partitions_of(settings, topics)
    missing = [settings.topic_prefix + topic.name for topic in topics if topic.name not in partitions]
    if missing:
        raise UsageError(f"the broker has no topic {', '.join(missing)}: run `trueward topics create`")
    return partitions


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer."""
    producer = make_producer(settings, "trueward-cli")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await producer.start()
        yield producer
    finally:
        await producer.stop()


async def send_all(
    producer: AIOKafkaProducer, topic: str, records: Iterable[Keyed], sent: Callable[[int], None]
) -> None:
    """Send records, many at a time; ``sent`` hears how many more the broker has acknowledged.

    Raises aiokafka's errors; what was acknowledged before stays sent.
    """
    remaining = iter(records)
    while portion := list(islice(remaining, PORTION)):
        acknowledgements = [await producer.send(topic, record.value, key=record.key) for record in portion]
        outcomes = await asyncio.gather(*acknowledgements, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        sent(len(outcomes) - len(failures))
        if failures:
            raise failures[0]


async def read(settings: Settings, topics: Collection[Topic], *, from_beginning: bool) -> AsyncGenerator[Any]:
    """Records (aiokafka's) of topics as they come, outside any consumer group; it ends only by being closed."""
    began = datetime.now(UTC)
    partitions = [
        TopicPartition(settings.topic_prefix + name, number)
        for name, numbers in (await existing(settings, topics)).items()
        for number in numbers
    ]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-cli",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await consumer.start()
            consumer.assign(partitions)
            if settings.kafka_true_end_offsets and not from_beginning:
                await consumer.seek_to_end()
                for partition in consumer.assignment():
                    await consumer.position(partition)
            else:
                await consumer.seek_to_beginning()
        async for record in consumer:
            # A broker whose end offsets cannot be believed is read from the beginning, up to what is new.
            if from_beginning or record.timestamp >= began.timestamp() * 1000:
                yield record
    finally:
        await consumer.stop()


async def read_through(settings: Settings, topic: Topic) -> AsyncGenerator[Any]:
    """The records (aiokafka's) of a topic that are there now, from its beginning."""
    name = settings.topic_prefix + topic.name
    partitions = [TopicPartition(name, number) for number in (await existing(settings, [topic]))[topic.name]]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="trueward-cli",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await consumer.start()
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(partitions) if settings.kafka_true_end_offsets else None
        idle = False
        while not (idle if ends is None else await _reached(consumer, ends)):
            found = await consumer.getmany(timeout_ms=IDLE_MS if ends is None else POLL_MS)
            # A broker whose end offsets cannot be believed has given all when it gives nothing for a while.
            idle = not found
            for records in found.values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()


async def _reached(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    return all([await consumer.position(partition) >= end for partition, end in ends.items()])
