"""What a cluster brings: several addresses, topics that grow, and brokers that are away for a while."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import KafkaError

from deploy.local.broker import Broker
from shared.broker import close_producer, create_missing_topics, make_producer, sender
from shared.outbox import Message
from shared.settings import Settings
from tests import parts
from tests.kernel_world import (
    DEADLINE_SECONDS,
    INPUT,
    eventually,
    make_tables,
    producing,
    publish,
    read_topic,
    running,
    settings_for,
    taken_all,
)

NOBODY = "127.0.0.1:1"
"""An address where nothing answers: port 1 is reserved."""


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> Settings:
    """A service that is told of two addresses, of which only the second answers."""
    make_tables(database_dsn)
    found = settings_for(
        database_dsn,
        f"{NOBODY},{kafka_broker.bootstrap_servers}",
        topic_prefix,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
    )
    await create_missing_topics(found)
    return found


async def test_several_addresses_are_tried_one_after_the_other(settings: Settings, database_dsn: str) -> None:
    async with running(settings) as service:
        await service.ready()
        async with producing(settings.kafka_bootstrap_servers) as producer:
            await publish(producer, settings.topic_prefix + INPUT.name, range(100))
        await taken_all(database_dsn, range(100))


@pytest.mark.slow
@pytest.mark.needs_end_offsets  # the fallback broker cannot add partitions either
async def test_partitions_that_are_added_are_read_before_long(settings: Settings, database_dsn: str) -> None:
    """By a service that goes on running, from their beginning."""
    topic, numbers = settings.topic_prefix + INPUT.name, itertools.count()
    async with running(settings) as service:
        await service.ready()
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
        await admin.start()
        try:
            await admin.create_partitions({topic: NewPartitions(total_count=INPUT.partitions + 1)})

            async def count() -> int:
                (found,) = await admin.describe_topics([topic])
                return len(found["partitions"])

            await eventually(count, lambda found: found > INPUT.partitions, "the broker tells of the new one")
        finally:
            await admin.close()
        async with producing(settings.kafka_bootstrap_servers) as producer:
            for partition in range(INPUT.partitions + 1):
                await publish(producer, topic, itertools.islice(numbers, 20), partition=partition)
        await taken_all(database_dsn, range(20 * (INPUT.partitions + 1)))


@pytest.mark.slow
@pytest.mark.needs_restartable_broker
async def test_what_is_not_acknowledged_in_time_has_failed_and_is_not_sent_later(
    restartable_broker: parts.RestartableBroker, topic_prefix: str
) -> None:
    """Else a relay would hang in a send beyond its lease, and send what its successor has sent long ago."""
    await restartable_broker.start()
    servers = restartable_broker.bootstrap_servers
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=topic_prefix)
    await create_missing_topics(settings)
    producer = make_producer(settings, "test")
    await producer.start()
    send = sender(producer, topic_prefix)
    await send(Message(1, INPUT.name, b"key", b"before", ()))
    restartable_broker.kill()
    late = asyncio.create_task(send(Message(2, INPUT.name, b"key", b"while it is away", ())))
    done, _ = await asyncio.wait([late], timeout=DEADLINE_SECONDS)
    assert done, "the send neither succeeds nor fails"
    assert isinstance(late.exception(), TimeoutError | KafkaError)
    await asyncio.wait_for(close_producer(producer), DEADLINE_SECONDS)
    await restartable_broker.start()
    async with producing(servers) as another:
        await another.send_and_wait(topic_prefix + INPUT.name, b"after", key=b"key")
    found = await read_topic(servers, topic_prefix + INPUT.name, lambda records: len(records) >= 2)
    assert [record.value for record in found] == [b"before", b"after"]
