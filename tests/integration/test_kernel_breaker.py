"""The breaker in the consumer's transactions: a flood of dead letters is not taken in, and stays where it is."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from structlog.testing import capture_logs

import shared.consumer
from deploy.local.broker import Broker
from deploy.local.processes import free_port
from shared import breaker
from shared.broker import create_missing_topics
from shared.consumer import Consumer
from shared.contracts.dead_letters import DeadLetter
from shared.database import connect_pool
from shared.effects import Handler
from shared.records import Record
from shared.settings import Settings
from tests.kernel_world import (
    INPUT,
    SERVICE,
    ServiceProcess,
    eventually,
    make_tables,
    producing,
    publish,
    query,
    read_topic,
    settings_for,
    taken,
    taken_all,
    tally,
)
from tests.support import RECEIVED_AT, Feed, FixedClock, drain_outbox

GARBAGE = b"no JSON"


@pytest.fixture
def dsn(database_dsn: str) -> str:
    make_tables(database_dsn)
    return database_dsn


@pytest.fixture
async def pool(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Pool[Any]]:
    monkeypatch.setattr(shared.consumer, "BREAKER_POLL_SECONDS", 0.02)
    pool = await connect_pool(dsn, role=SERVICE, application_name="test", max_size=4)
    yield pool
    await pool.close()


def consumer(
    pool: asyncpg.Pool[Any], *, at: datetime = RECEIVED_AT, handler: Handler = tally, **more: Any
) -> Consumer:
    """An instance of the service; where nothing else is said, 10 dead letters may be a flood."""
    settings = Settings(**{"breaker_min_refused": 10, **more})
    return Consumer(service=SERVICE, settings=settings, pool=pool, clock=FixedClock(at), handler=handler)


def garbage(feed: Feed, count: int, *, partition: int = 0) -> list[Record]:
    return [feed.record(INPUT, GARBAGE, partition=partition) for _ in range(count)]


def good(feed: Feed, found: Sequence[int], *, partition: int = 0) -> list[Record]:
    return [feed.record(INPUT, {"n": n}, partition=partition, key=b"k") for n in found]


async def letters(pool: asyncpg.Pool[Any]) -> list[DeadLetter]:
    emitted = await drain_outbox(pool)
    return [DeadLetter.model_validate_json(each.value) for each in emitted if each.topic == "dead-letters"]


@contextlib.asynccontextmanager
async def stopped(taker: Consumer, records: Sequence[Record], dsn: str) -> AsyncIterator[breaker.State]:
    """While these records wait for the breaker; afterwards they must have been taken in."""
    taking = asyncio.create_task(taker.take(records, {}))
    state = await eventually(
        lambda: breaker.shown(dsn, service=SERVICE), lambda seen: seen.reason is not None, "the breaker trips"
    )
    assert not taking.done()
    yield state
    await asyncio.wait_for(taking, 20)


async def test_a_flood_in_one_batch_is_not_taken_in(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """The batch stays in its topic, good records and bad; once the cause is mended it is read like any other."""
    feed = Feed()
    records = good(feed, range(10)) + garbage(feed, 10)
    mended = False

    async def handler(batch: Sequence[Record], effects: Any) -> None:
        await tally([record for record in batch if not mended or record.value != GARBAGE], effects)

    with capture_logs() as logs:
        async with stopped(consumer(pool, handler=handler), records, dsn) as state:
            assert state.tripped_at == RECEIVED_AT
            assert state.reason is not None
            assert "of snapshots 10 of 20 records were refused" in state.reason
            assert "undecodable" in state.reason
            assert "trueward breaker reset --service alerting" in state.reason
            assert taken(dsn) == Counter()
            assert query(dsn, "SELECT count(*) FROM alerting.inbox") == [(0,)]
            assert await letters(pool) == []
            mended = True
            await breaker.reset(dsn, service=SERVICE)
    assert taken(dsn) == Counter(range(10))
    assert await letters(pool) == []
    assert [line["event"] for line in logs if line["log_level"] == "critical"] == ["intake stopped"]


async def test_a_trickle_adds_up_to_a_flood_and_a_restart_does_not_begin_anew(
    dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    """Piece by piece, each by an instance of its own, as a supervisor would start them."""
    feed = Feed()
    for _restart in range(9):
        await consumer(pool).take(garbage(feed, 1), {})
    async with stopped(consumer(pool), garbage(feed, 1), dsn) as state:
        assert state.reason is not None
        assert "10 of 10 records were refused" in state.reason
        assert len(await letters(pool)) == 9
        further = asyncio.create_task(consumer(pool).take(good(feed, [1], partition=3), {}))
        with capture_logs() as logs:
            await eventually(_now(logs), bool, "the next instance says that it is stopped too")
        assert taken(dsn) == Counter()
        await breaker.reset(dsn, service=SERVICE)
        await further
    assert taken(dsn) == Counter([1])
    assert len(await letters(pool)) == 1


def _now(seen: list[Any]) -> Any:
    async def look() -> list[Any]:
        return seen

    return look


async def test_the_partitions_of_a_topic_are_judged_together(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    await consumer(pool).take(garbage(feed, 6), {})
    async with stopped(consumer(pool), garbage(feed, 4, partition=1), dsn):
        await breaker.reset(dsn, service=SERVICE)
    assert len(await letters(pool)) == 10


async def test_garbage_among_good_records_is_no_flood(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    for step in range(30):
        await consumer(pool).take(garbage(feed, 1) + good(feed, [2 * step, 2 * step + 1]), {})
    assert taken(dsn) == Counter(range(60))
    assert len(await letters(pool)) == 30


async def test_a_window_that_is_over_is_forgotten(pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    window = timedelta(minutes=10)
    for step in range(4):
        await consumer(pool, at=RECEIVED_AT + step * window).take(garbage(feed, 9), {})
    # A clock that was set back begins anew as well.
    await consumer(pool, at=RECEIVED_AT).take(garbage(feed, 9), {})
    assert len(await letters(pool)) == 45


async def test_an_operator_lets_a_flood_pass(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    async with stopped(consumer(pool), garbage(feed, 50), dsn):
        await breaker.reset(dsn, service=SERVICE, passes_until=RECEIVED_AT + timedelta(hours=1))
    await consumer(pool, at=RECEIVED_AT + timedelta(minutes=59)).take(garbage(feed, 50), {})
    assert len(await letters(pool)) == 100
    # What passed is not held against what comes afterwards.
    await consumer(pool, at=RECEIVED_AT + timedelta(minutes=60)).take(garbage(feed, 9), {})
    async with stopped(consumer(pool, at=RECEIVED_AT + timedelta(minutes=61)), garbage(feed, 1), dsn):
        await breaker.reset(dsn, service=SERVICE)


async def test_what_the_database_refuses_one_by_one_is_a_flood_too(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    async with stopped(consumer(pool), good(feed, range(2**40, 2**40 + 16)), dsn) as state:
        assert state.reason is not None
        assert "unprocessable" in state.reason
        assert len(await letters(pool)) == 9
        await breaker.reset(dsn, service=SERVICE)
    assert len(await letters(pool)) == 7


async def test_off_means_off(pool: asyncpg.Pool[Any]) -> None:
    await consumer(pool, breaker_min_refused=0).take(garbage(Feed(), 500), {})
    assert len(await letters(pool)) == 500


async def test_the_first_reason_stands(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    for reason in ("first", "second"):
        async with pool.acquire() as connection:
            await breaker.trip(connection, RECEIVED_AT, reason)
    assert (await breaker.reset(dsn, service=SERVICE)).reason == "first"
    assert await breaker.shown(dsn, service=SERVICE) == breaker.State()


@pytest.fixture
def processes() -> Iterator[list[ServiceProcess]]:
    started: list[ServiceProcess] = []
    yield started
    for process in started:
        process.kill()


async def test_a_service_stops_says_so_and_goes_on_after_a_reset_whatever_restarts_it(
    dsn: str, kafka_broker: Broker, topic_prefix: str, tmp_path: Path, processes: list[ServiceProcess]
) -> None:
    """On the real parts, in processes: killed while it is stopped, and its successor takes nothing in either."""
    port = free_port()
    settings = settings_for(
        dsn,
        kafka_broker.bootstrap_servers,
        topic_prefix,
        http_port=port,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
    )
    await create_missing_topics(settings)
    topic = settings.topic_prefix + INPUT.name
    async with producing(kafka_broker.bootstrap_servers) as producer:
        # One letter that is out before the flood, so that there is something that must be published.
        await producer.send_and_wait(topic, GARBAGE, partition=0)
        for _restart in range(2):
            process = ServiceProcess(settings, tmp_path)
            processes.append(process)
            process.start()
            if _restart == 0:
                await read_topic(settings.kafka_bootstrap_servers, settings.topic_prefix + "dead-letters", bool)
                for number in range(150):
                    await producer.send(topic, GARBAGE, partition=number % 4)
                await producer.flush()
            said = await eventually(
                lambda: ready(port), lambda seen: "breaker" in seen[1], "it says it is stopped"
            )
            assert said[0] == 503
            assert "trueward breaker reset --service alerting" in said[1]
            await publish(producer, topic, range(_restart * 50, _restart * 50 + 50))
            process.signal(signal.SIGKILL)
            await process.exit_code()
        assert taken(dsn) == Counter()
        process = ServiceProcess(settings, tmp_path)
        processes.append(process)
        process.start()
        await breaker.reset(dsn, service=SERVICE, passes_until=datetime.now(UTC) + timedelta(hours=1))
        await taken_all(dsn, range(100))
        name = settings.topic_prefix + "dead-letters"
        found = await read_topic(
            settings.kafka_bootstrap_servers, name, lambda seen: len({_id(each) for each in seen}) >= 151
        )
    assert len({_id(each) for each in found}) == 151
    assert await eventually(lambda: ready(port), lambda seen: seen[0] == 200, "ready again")


def _id(record: Any) -> bytes:
    return dict(record.headers)["ce_id"]


async def ready(port: int) -> tuple[int, str]:
    """Status and text; 0 where nobody answers."""
    try:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}/health/ready", timeout=10)
    except httpx.TransportError as error:
        return 0, repr(error)
    return response.status_code, response.text
