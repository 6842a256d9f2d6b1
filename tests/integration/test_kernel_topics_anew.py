"""A topic made anew is known by its id, however far its new log has grown; the way out is documented and heals."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.broker import Broker
from shared import inbox, topic_identity
from shared.broker import create_missing_topics
from shared.errors import InputLostError
from shared.settings import Settings
from tests.kernel_world import (
    INPUT,
    SERVICE,
    eventually,
    make_tables,
    producing,
    publish,
    query,
    running,
    settings_for,
    taken,
    taken_all,
)


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> Settings:
    make_tables(database_dsn)
    found = settings_for(
        database_dsn,
        kafka_broker.bootstrap_servers,
        topic_prefix,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
    )
    await create_missing_topics(found)
    return found


async def make_anew(settings: Settings) -> None:
    """Delete the input topic and create it again, with nothing in it."""
    name = settings.topic_prefix + INPUT.name
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.delete_topics([name])
    await eventually(admin.list_topics, lambda names: name not in names, "the topic is gone")
    await admin.close()
    await create_missing_topics(settings)


async def write(settings: Settings, numbers: range) -> None:
    async with producing(settings.kafka_bootstrap_servers) as producer:
        await publish(producer, settings.topic_prefix + INPUT.name, numbers, partition=0)


async def assert_refused(task: asyncio.Task[Any], settings: Settings) -> None:
    async with asyncio.timeout(40):
        (failure,) = await asyncio.gather(task, return_exceptions=True)
    (error,) = leaves(failure)
    assert isinstance(error, InputLostError)
    assert f"made anew since it was read: {settings.topic_prefix}{INPUT.name}." in str(error)
    assert f"trueward inbox reset --service {SERVICE} --topic {INPUT.name}" in str(error)


def leaves(error: Any) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def test_a_topic_made_anew_whose_log_has_outgrown_the_inbox_is_refused_until_the_reset(
    settings: Settings, database_dsn: str
) -> None:
    """By offsets alone, the records 1,000 to 1,049 would be missed in silence."""
    await write(settings, range(50))
    async with running(settings):
        await taken_all(database_dsn, range(50))
    await make_anew(settings)
    await write(settings, range(1_000, 1_200))
    for _restart in range(2):
        async with running(settings) as service:
            await assert_refused(service.task, settings)
    assert taken(database_dsn) == Counter(range(50))
    await inbox.reset(database_dsn, service=SERVICE, topic=INPUT.name)
    async with running(settings):
        await taken_all(database_dsn, [*range(50), *range(1_000, 1_200)])


async def test_a_running_service_notices_it_too(
    settings: Settings, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_identity, "CHECK_SECONDS", 0.1)
    await write(settings, range(10))
    async with running(settings) as service:
        await taken_all(database_dsn, range(10))
        await make_anew(settings)
        await assert_refused(service.task, settings)
    await inbox.reset(database_dsn, service=SERVICE)
    await write(settings, range(10, 30))
    async with running(settings):
        await taken_all(database_dsn, range(30))


async def test_a_topic_made_anew_before_it_was_read_is_nothing_to_speak_of(
    settings: Settings, database_dsn: str
) -> None:
    async with running(settings) as service:
        await service.ready()
    await make_anew(settings)
    await write(settings, range(10))
    async with running(settings):
        await taken_all(database_dsn, range(10))


async def test_a_log_that_was_carried_over_is_adopted(settings: Settings, database_dsn: str) -> None:
    """The same records at the same offsets under a new id, as after a restore of Kafka from a copy."""
    await write(settings, range(20))
    async with running(settings):
        await taken_all(database_dsn, range(20))
    await make_anew(settings)
    await write(settings, range(30))
    async with running(settings) as service:
        await assert_refused(service.task, settings)
    assert await inbox.adopt(database_dsn, service=SERVICE, topic=INPUT.name) == 1
    async with running(settings):
        await taken_all(database_dsn, range(30))
    assert query(database_dsn, "SELECT count(*) FROM alerting.topic_identities") == [(1,)]


async def test_what_was_read_before_ids_were_kept_is_taken_for_the_present_topic(
    settings: Settings, database_dsn: str
) -> None:
    """After an upgrade from a version that knew none."""
    await write(settings, range(5))
    async with running(settings):
        await taken_all(database_dsn, range(5))
    await inbox.adopt(database_dsn, service=SERVICE)
    await write(settings, range(5, 10))
    async with running(settings):
        await taken_all(database_dsn, range(10))
