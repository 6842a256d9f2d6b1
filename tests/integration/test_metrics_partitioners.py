"""Clients that partition differently, and some that send no key: the figures are right, whatever the mix.

aiokafka, like Java, goes by murmur2 of the key; librdkafka by CRC32 unless told otherwise; without a key everyone
spreads. So a prediction and its label meet from two partitions, in two instances, at the same moment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Message, Producer

from deploy.local.broker import Broker
from services.metrics.app import DEFINITION
from services.metrics.settings import MetricsSettings
from shared.broker import create_missing_topics
from shared.database import connect_pool
from shared.topics import LABELS, PREDICTIONS
from tests.kernel_world import eventually, producing, query, running, settings_for
from tests.metrics_state import assert_figures, assert_state
from tests.metrics_world import HOUR, MINUTE, START, Fact, MetricsWorld, label, prediction
from tests.support import drain_outbox

INSTANCES = 3
ENTITIES = 240
SLOW_BROKER_SECONDS = 60.0

Send = Callable[[str, bytes | None, bytes], Awaitable[int]]
"""Sends a key and a value to a topic; returns the partition, once acknowledged."""


def by_aiokafka(producer: AIOKafkaProducer, *, keyed: bool) -> Send:
    async def send(topic: str, key: bytes | None, value: bytes) -> int:
        found = await producer.send_and_wait(topic, value, key=key if keyed else None)
        partition: int = found.partition
        return partition

    return send


def by_librdkafka(producer: Producer, *, keyed: bool) -> Send:
    async def send(topic: str, key: bytes | None, value: bytes) -> int:
        delivered: list[Any] = []

        def report(error: object, message: Message) -> None:
            delivered.append(error or message.partition())

        producer.produce(topic, value, key=key if keyed else None, on_delivery=report)

        async def look() -> list[Any]:
            producer.poll(0)
            return delivered

        (partition,) = await eventually(look, bool, "delivered", seconds=SLOW_BROKER_SECONDS)
        assert isinstance(partition, int), partition
        return partition

    return send


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> MetricsSettings:
    found = settings_for(
        database_dsn,
        kafka_broker.bootstrap_servers,
        topic_prefix,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        max_batch_records=20,  # many transactions that run side by side
    )
    await create_missing_topics(found)
    return MetricsSettings(**{name: getattr(found, name) for name in type(found).model_fields})


def facts_of(chance: Random, base: float) -> list[tuple[str, Fact]]:
    """By entity, in a random order: predictions, several of some entities, and labels, some corrected."""
    found: list[tuple[str, Fact]] = []
    for number in range(ENTITIES):
        entity = f"e{number}"
        for place in range(chance.choice([1, 1, 2])):
            moment = base + chance.randrange(HOUR)
            made = prediction(
                f"{entity}-{place}",
                moment,
                chance.randrange(1001) / 1000,
                model=f"m{place}",
                entity_id=entity,
                segment={"region": "eu"},
            )
            found.append((entity, made))
        found += [
            (entity, label(entity, base + chance.randrange(HOUR), chance.randrange(2)))
            for _ in range(chance.choice([0, 1, 1, 1, 2]))
        ]
    chance.shuffle(found)
    return found


@pytest.mark.slow
async def test_the_figures_are_right_whatever_the_mix_of_clients(
    settings: MetricsSettings, database_dsn: str, kafka_broker: Broker
) -> None:
    base = (datetime.now(UTC) - START).total_seconds() // MINUTE * MINUTE - 2 * HOUR
    facts = facts_of(Random(11), base)
    partitions: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    by_client: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    librdkafka = Producer({"bootstrap.servers": kafka_broker.bootstrap_servers})
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(running(settings, service=DEFINITION)) for _ in range(INSTANCES)
        ]
        for service in services:
            await service.ready()
        aiokafka = await stack.enter_async_context(
            producing(kafka_broker.bootstrap_servers, enable_idempotence=False)
        )
        clients = {
            "murmur2": by_aiokafka(aiokafka, keyed=True),
            "crc32": by_librdkafka(librdkafka, keyed=True),
            "keyless": by_aiokafka(aiokafka, keyed=False),
            "keyless librdkafka": by_librdkafka(librdkafka, keyed=False),
        }
        mix = itertools.cycle(clients)

        async def send(entity: str, fact: Fact, client: str) -> None:
            topic, event = fact
            name = settings.topic_prefix + topic.name
            partition = await clients[client](name, entity.encode(), json.dumps(event).encode())
            partitions[entity][topic.name].add(partition)
            by_client[client, topic.name][entity] = partition

        for first in range(0, len(facts), 40):
            await asyncio.gather(*(send(*fact, next(mix)) for fact in facts[first : first + 40]))

        async def taken() -> int:
            rows = await asyncio.to_thread(query, database_dsn, "SELECT sum(next_offset)::int FROM metrics.inbox")
            return rows[0][0] or 0

        await eventually(taken, lambda count: count == len(facts), "all taken in", seconds=SLOW_BROKER_SECONDS)
    # What the test is about did happen.
    apart = [one for one in partitions.values() if one[LABELS.name] and one[PREDICTIONS.name] != one[LABELS.name]]
    assert len(apart) > ENTITIES / 4
    keyed = [by_client[client, PREDICTIONS.name] for client in ("murmur2", "crc32")]
    assert any(keyed[0][entity] != keyed[1][entity] for entity in keyed[0].keys() & keyed[1].keys())

    pool = await connect_pool(database_dsn, role="metrics", application_name="test", max_size=2)
    try:
        world = MetricsWorld(pool)
        plain = await assert_state(world, [fact for _, fact in facts])
        await drain_outbox(pool)
        later = int((datetime.now(UTC) - START).total_seconds()) // MINUTE * MINUTE + HOUR
        await assert_figures(world, plain, later)
    finally:
        await pool.close()
