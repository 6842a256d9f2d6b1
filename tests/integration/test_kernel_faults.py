"""What is taken away from a service while it works: its life, its database, its broker."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from deploy.local.broker import Broker
from deploy.local.processes import free_port
from shared.broker import create_missing_topics
from shared.service import PROBE_SECONDS
from shared.settings import Settings
from tests import parts
from tests.kernel_world import (
    INPUT,
    OUTPUT,
    Proxy,
    ServiceProcess,
    assert_in_sequence,
    eventually,
    make_tables,
    producing,
    proxied,
    publish,
    query,
    read_topic,
    running,
    settings_for,
    taken,
    taken_all,
)

GRACE_SECONDS = 3
"""Time that a batch in flight is given in these tests, so that a stop that needs all of it is quick too."""
STOP_SECONDS = 15
"""What a stop may take beside it, on a busy machine."""


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> Settings:
    """A service on the shared broker, with a database and topics of its own."""
    make_tables(database_dsn)
    found = settings_for(
        database_dsn,
        kafka_broker.bootstrap_servers,
        topic_prefix,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        graceful_timeout_seconds=GRACE_SECONDS,
    )
    await create_missing_topics(found)
    return found


@pytest.fixture
async def producer(kafka_broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    async with producing(kafka_broker.bootstrap_servers) as producer:
        yield producer


@pytest.fixture
def processes() -> Iterator[list[ServiceProcess]]:
    """What a test starts; none outlives it."""
    started: list[ServiceProcess] = []
    yield started
    for process in started:
        process.kill()


def topic(settings: Settings) -> str:
    return settings.topic_prefix + INPUT.name


async def answer(port: int, path: str = "/health/ready") -> tuple[int, str]:
    """Status and text; 0 where nobody answers."""
    try:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}{path}", timeout=10)
    except httpx.TransportError as error:
        return 0, repr(error)
    return response.status_code, response.text


async def until_status(port: int, status: int, detail: str = "") -> None:
    await eventually(
        lambda: answer(port), lambda seen: seen[0] == status and detail in seen[1], f"{status} {detail}"
    )


async def said_in_full(settings: Settings, count: int) -> None:
    """Everything was published, in sequence within each key."""
    name = settings.topic_prefix + OUTPUT.name
    said = await read_topic(
        settings.kafka_bootstrap_servers,
        name,
        lambda found: len({dict(record.headers)["ce_id"] for record in found}) >= count,
    )
    assert sum(assert_in_sequence(said).values()) == count


@pytest.mark.slow
async def test_killed_in_the_middle_again_and_again(
    settings: Settings,
    database_dsn: str,
    producer: AIOKafkaProducer,
    tmp_path: Path,
    processes: list[ServiceProcess],
) -> None:
    """kill -9 between any two steps: every effect once, every event at least once, in sequence."""
    chance = random.Random(7)
    numbers = itertools.count()
    published = 0
    small = settings.model_copy(update={"max_batch_records": 20, "http_port": 0})
    for kill in range(2):
        process = ServiceProcess(small, tmp_path)
        processes.append(process)
        process.start()
        target = sum(taken(database_dsn).values()) + chance.randrange(50, 400)
        await publish(producer, topic(settings), itertools.islice(numbers, 700))
        published += 700

        async def count() -> int:
            return sum((await asyncio.to_thread(taken, database_dsn)).values())

        await eventually(count, lambda seen, wanted=target: seen >= wanted, f"{target} taken before kill {kill}")
        process.signal(signal.SIGKILL)
        assert await process.exit_code() == -signal.SIGKILL
    async with running(small):
        await taken_all(database_dsn, range(published))
        await said_in_full(settings, published)


@pytest.mark.slow
async def test_sigterm_finishes_or_rolls_back_and_exits_with_0(
    settings: Settings,
    database_dsn: str,
    producer: AIOKafkaProducer,
    tmp_path: Path,
    processes: list[ServiceProcess],
) -> None:
    port = free_port()
    process = ServiceProcess(settings.model_copy(update={"http_port": port, "max_batch_records": 20}), tmp_path)
    processes.append(process)
    process.start()
    await until_status(port, 200)
    assert (await answer(port, "/health/live"))[0] == 200
    await publish(producer, topic(settings), range(600))

    async def some() -> int:
        return sum((await asyncio.to_thread(taken, database_dsn)).values())

    await eventually(some, bool, "some are taken")
    metrics = (await answer(port, "/metrics"))[1]
    assert 'trueward_records_total{topic="snapshots"}' in metrics
    process.signal(signal.SIGTERM)
    assert await process.exit_code(seconds=GRACE_SECONDS + STOP_SECONDS) == 0, process.words()
    assert "Traceback" not in process.words()
    # Everything that was taken is told to Kafka: the next start reads no record twice.
    rows = query(database_dsn, "SELECT sum(next_offset) FROM alerting.inbox")
    assert int(rows[0][0]) == sum(taken(database_dsn).values())
    async with running(settings):
        await taken_all(database_dsn, range(600))
        await said_in_full(settings, 600)


@pytest.mark.slow
async def test_a_database_that_is_away_comes_back_and_falls_silent(
    settings: Settings,
    database_dsn: str,
    producer: AIOKafkaProducer,
    tmp_path: Path,
    processes: list[ServiceProcess],
) -> None:
    """Ready with it alone; and at the end, one that does not answer holds up no stop."""
    port = free_port()
    async with proxied(database_dsn) as (proxy, dsn):
        await proxy.stop()
        away = settings.model_copy(update={"http_port": port, "postgres_dsn": SecretStr(dsn)})
        process = ServiceProcess(away, tmp_path)
        processes.append(process)
        process.start()
        await until_status(port, 503, "waiting for PostgreSQL")
        assert (await answer(port, "/health/live"))[0] == 200
        await proxy.start()
        await until_status(port, 200)
        await proxy.stop()
        await until_status(port, 503, "PostgreSQL does not answer")
        await proxy.start()
        await until_status(port, 200)
        proxy.fall_silent()
        await publish(producer, topic(settings), range(50))
        asked = time.monotonic()
        await until_status(port, 503, "PostgreSQL does not answer")
        assert time.monotonic() - asked < 3 * PROBE_SECONDS
        # Now a batch waits for the database, and so do the relay and whoever asked for the health.
        process.signal(signal.SIGTERM)
        assert await process.exit_code(seconds=GRACE_SECONDS + STOP_SECONDS) == 0, process.words()
        assert "Traceback" not in process.words()
    async with running(settings):
        await taken_all(database_dsn, range(50))


async def test_backends_that_are_terminated_again_and_again(
    settings: Settings, database_dsn: str, producer: AIOKafkaProducer
) -> None:
    terminate = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'trueward-%%'
    """
    numbers = itertools.count()
    small = settings.model_copy(update={"max_batch_records": 20})
    async with running(small) as service:
        await service.ready()
        for _time in range(5):
            await publish(producer, topic(settings), itertools.islice(numbers, 200))
            # It may just be connecting again.
            await eventually(
                lambda: asyncio.to_thread(query, database_dsn, terminate),
                lambda rows: rows != [(0,)],
                "terminated",
            )
        await taken_all(database_dsn, range(1_000))
        await said_in_full(settings, 1_000)
        await service.ready()


async def test_a_database_that_is_away_for_a_while(
    settings: Settings, database_dsn: str, producer: AIOKafkaProducer
) -> None:
    async with proxied(database_dsn) as (proxy, dsn):
        away = settings.model_copy(update={"postgres_dsn": SecretStr(dsn), "max_batch_records": 20})
        async with running(away) as service:
            await service.ready()
            await publish(producer, topic(settings), range(200))
            await _some_taken(database_dsn)
            await proxy.stop()
            await publish(producer, topic(settings), range(200, 400))
            assert await service.health.obstacle() is not None
            await proxy.start()
            await taken_all(database_dsn, range(400))
            await service.ready()
            await said_in_full(settings, 400)


async def _some_taken(dsn: str) -> None:
    async def count() -> int:
        return sum((await asyncio.to_thread(taken, dsn)).values())

    await eventually(count, bool, "some are taken")


@pytest.mark.slow
@pytest.mark.needs_restartable_broker
async def test_a_broker_that_is_killed_and_comes_back(
    restartable_broker: parts.RestartableBroker,
    database_dsn: str,
    topic_prefix: str,
    tmp_path: Path,
    processes: list[ServiceProcess],
) -> None:
    """Away at the start, killed in the middle, away at the end."""
    make_tables(database_dsn)
    port = free_port()
    settings = settings_for(
        database_dsn,
        restartable_broker.bootstrap_servers,
        topic_prefix,
        http_port=port,
        graceful_timeout_seconds=GRACE_SECONDS,
    )
    process = ServiceProcess(settings, tmp_path)
    processes.append(process)
    process.start()
    await until_status(port, 503, "waiting for Kafka")
    await restartable_broker.start()
    await until_status(port, 200)
    async with producing(restartable_broker.bootstrap_servers) as producer:
        await publish(producer, topic(settings), range(300))
        await _some_taken(database_dsn)
        restartable_broker.kill()
        await until_status(port, 503, "Kafka does not answer")
        await restartable_broker.start()
        await until_status(port, 200)
        await publish(producer, topic(settings), range(300, 400))
    await taken_all(database_dsn, range(400))
    await said_in_full(settings, 400)
    restartable_broker.kill()
    await until_status(port, 503)
    process.signal(signal.SIGTERM)
    assert await process.exit_code(seconds=GRACE_SECONDS + STOP_SECONDS) == 0, process.words()


def test_the_proxy_is_what_it_says(database_dsn: str) -> None:
    """The tests above stand on it."""

    async def look() -> None:
        async with proxied(database_dsn) as (proxy, dsn):
            assert isinstance(proxy, Proxy)
            assert await asyncio.to_thread(query, dsn, "SELECT 1") == [(1,)]
            await proxy.stop()
            with pytest.raises(psycopg.OperationalError):
                await asyncio.to_thread(query, dsn, "SELECT 1")
            await proxy.start()
            assert await asyncio.to_thread(query, dsn, "SELECT 1") == [(1,)]

    asyncio.run(look())
