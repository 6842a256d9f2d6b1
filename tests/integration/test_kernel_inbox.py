"""One batch, one transaction: the inbox and the effects on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

import shared.consumer
from shared import inbox
from shared.consumer import Consumer
from shared.contracts.dead_letters import DeadLetter
from shared.database import _prepare, connect, connect_pool
from shared.effects import Effects, Handler
from shared.inbox import Advance
from shared.instruments import RECORDS_TOTAL
from shared.records import Place, Record
from tests.kernel_world import INPUT, SERVICE, Tallied, eventually, make_tables, query, taken, tally
from tests.support import RECEIVED_AT, Feed, drain_outbox, make_consumer

HERE: Place = (INPUT.name, 0)
THERE: Place = (INPUT.name, 1)
BLOCKED = "SELECT cardinality(pg_blocking_pids($1)) > 0"


@pytest.fixture
def dsn(database_dsn: str) -> str:
    """A database with the tables of the test's service."""
    make_tables(database_dsn)
    return database_dsn


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """Connections in the service's role."""
    pool = await connect_pool(dsn, role=SERVICE, application_name="test", max_size=4)
    yield pool
    await pool.close()


def consumer(pool: asyncpg.Pool[Any], handler: Handler = tally) -> Consumer:
    return make_consumer(handler, pool, service=SERVICE)


def numbers(feed: Feed, found: Sequence[int], *, partition: int = 0) -> list[Record]:
    return [feed.record(INPUT, {"n": n}, partition=partition, key=b"k") for n in found]


def next_offsets(dsn: str) -> dict[Place, int]:
    rows = query(dsn, "SELECT topic, partition, next_offset FROM alerting.inbox")
    return {(topic, partition): offset for topic, partition, offset in rows}


def unsent(dsn: str) -> int:
    return int(query(dsn, "SELECT unsent FROM alerting.published_outbox")[0][0])


async def test_a_batch_is_taken_in_published_and_remembered(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    records = numbers(feed, [1, 2]) + numbers(feed, [3], partition=1)
    await consumer(pool).take(records, {HERE: 9})
    assert taken(dsn) == Counter([1, 2, 3])
    assert next_offsets(dsn) == {HERE: 2, THERE: 1}
    rows = query(dsn, "SELECT partition, log_end_offset, received_at, lost_records FROM alerting.inbox ORDER BY 1")
    assert rows == [(0, 9, RECEIVED_AT, 0), (1, None, RECEIVED_AT, 0)]
    emitted = await drain_outbox(pool)
    assert [Tallied.model_validate_json(message.value).sequence for message in emitted] == [1, 2, 3]


async def test_an_empty_batch_is_no_batch(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    await consumer(pool).take([], {})
    assert next_offsets(dsn) == {}


async def test_repeats_are_dropped(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    records = numbers(Feed(), range(6))
    taker = consumer(pool)
    for portion in (records[:3], records[:3], records[1:5], records, records[5:]):
        await taker.take(portion, {})
    assert taken(dsn) == Counter(range(6))
    assert next_offsets(dsn) == {HERE: 6}
    assert unsent(dsn) == 6


async def test_a_handler_that_raises_halfway_leaves_nothing(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """Looked at from outside, after every failure; then the batch is taken whole."""
    failures = 3
    sights = []

    async def halfway(records: Sequence[Record], effects: Effects) -> None:
        nonlocal failures
        sights.append((taken(dsn), next_offsets(dsn), unsent(dsn)))
        await tally(records, effects)
        if failures:
            failures -= 1
            raise ConnectionResetError("halfway")

    await consumer(pool, halfway).take(numbers(Feed(), [1, 2]), {})
    assert sights == [(Counter(), {}, 0)] * 4
    assert (taken(dsn), next_offsets(dsn), unsent(dsn)) == (Counter([1, 2]), {HERE: 2}, 2)


async def test_a_batch_that_is_tried_again_counts_and_tells_once(pool: asyncpg.Pool[Any]) -> None:
    counter, told, attempts = RECORDS_TOTAL.labels(topic="told"), list[int](), itertools.count(1)
    before = counter._value.get()

    async def telling(records: Sequence[Record], effects: Effects) -> None:
        attempt = next(attempts)
        effects.count(RECORDS_TOTAL, len(records), topic="told")
        effects.after_commit(lambda: told.append(attempt))
        if attempt < 3:
            raise ConnectionResetError("again")

    await consumer(pool, telling).take(numbers(Feed(), [1, 2]), {})
    assert counter._value.get() == before + 2
    assert told == [3]


async def test_a_batch_above_what_comes_next_is_refused(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    records = numbers(Feed(), range(5))
    taker = consumer(pool)
    await taker.take(records[:2], {})
    await taker.take(records[3:], {})
    assert taken(dsn) == Counter([0, 1])
    assert next_offsets(dsn) == {HERE: 2}


async def test_one_partitions_gap_holds_up_no_other(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    records = numbers(feed, [0, 1]) + numbers(feed, [10, 11], partition=1)
    await consumer(pool).take(records[1:], {})
    assert taken(dsn) == Counter([10, 11])
    assert next_offsets(dsn) == {HERE: 0, THERE: 2}


@pytest.mark.parametrize("poison", [{0}, {4}, {7}, {0, 3, 7}, set(range(8))], ids=str)
async def test_what_the_database_refuses_becomes_a_dead_letter_alone(
    dsn: str, pool: asyncpg.Pool[Any], poison: set[int]
) -> None:
    wanted = [2**40 + n if n in poison else n for n in range(8)]
    records = numbers(Feed(), wanted)
    await consumer(pool).take(records, {})
    assert taken(dsn) == Counter(n for n in range(8) if n not in poison)
    assert next_offsets(dsn) == {HERE: 8}
    emitted = await drain_outbox(pool)
    letters = [DeadLetter.model_validate_json(each.value) for each in emitted if each.topic == "dead-letters"]
    assert {letter.offset for letter in letters} == poison
    assert len(letters) == len(poison)
    assert {letter.reason for letter in letters} <= {"unprocessable"}
    assert all("out of range" in letter.detail for letter in letters)
    assert [letter.original_value() for letter in letters] == [records[n].value for n in sorted(poison)]
    assert len(emitted) == 8


async def test_poison_in_one_partition_leaves_the_others_order_alone(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    feed = Feed()
    records = [
        *numbers(feed, [0, 2**40, 1]),
        *numbers(feed, [10, 11, 12], partition=1),
        *numbers(feed, [2**41, 20], partition=2),
    ]
    await consumer(pool).take(records, {})
    rows = query(dsn, "SELECT n FROM alerting.taken ORDER BY partition, id")
    assert [n for (n,) in rows] == [0, 1, 10, 11, 12, 20]
    assert next_offsets(dsn) == {HERE: 3, THERE: 3, (INPUT.name, 2): 2}


async def test_a_dead_letter_holds_whatever_bytes_came(pool: asyncpg.Pool[Any]) -> None:
    headers = [("x\x00y", b"\xff\x00"), ("empty", None)]
    record = Feed().record(INPUT, b"\xff\x00garbage", key=b"\x00\xfe", headers=headers)
    await consumer(pool).take([record], {})
    (emitted,) = await drain_outbox(pool)
    assert (emitted.topic, emitted.key) == ("dead-letters", b"\x00\xfe")
    letter = DeadLetter.model_validate_json(emitted.value)
    assert letter.original_value() == b"\xff\x00garbage"
    assert (letter.reason, letter.service, letter.topic, letter.offset) == ("undecodable", SERVICE, INPUT.name, 0)
    assert letter.headers == (("x\N{REPLACEMENT CHARACTER}y", "/wA="), ("empty", None))
    assert letter.received_at == RECEIVED_AT
    assert emitted.headers["ce_id"] == f"{SERVICE}-{INPUT.name}-0-0"


async def test_two_consumers_of_one_partition_take_turns(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """The second gets the row when the first has committed, and finds its records taken."""
    records = numbers(Feed(), range(4))
    in_handler, go_on = asyncio.Event(), asyncio.Event()

    async def slow(taken_in: Sequence[Record], effects: Effects) -> None:
        await tally(taken_in, effects)
        in_handler.set()
        await go_on.wait()

    first = asyncio.create_task(consumer(pool, slow).take(records[:3], {}))
    await in_handler.wait()
    second_pool = await connect_pool(dsn, role=SERVICE, application_name="second", max_size=1)
    pid = await second_pool.fetchval("SELECT pg_backend_pid()")
    second = asyncio.create_task(consumer(second_pool).take(records, {}))
    await eventually(lambda: pool.fetchval(BLOCKED, pid), bool, "the second waits for the first")
    go_on.set()
    await asyncio.gather(first, second)
    await second_pool.close()
    assert taken(dsn) == Counter(range(4))
    assert next_offsets(dsn) == {HERE: 4}
    assert unsent(dsn) == 4


async def test_the_second_consumer_takes_all_when_the_first_rolls_back(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    records = numbers(Feed(), range(4))
    in_handler, go_on = asyncio.Event(), asyncio.Event()

    async def doomed(taken_in: Sequence[Record], effects: Effects) -> None:
        await tally(taken_in, effects)
        in_handler.set()
        await go_on.wait()

    first = asyncio.create_task(consumer(pool, doomed).take(records, {}))
    await in_handler.wait()
    second = asyncio.create_task(consumer(pool).take(records, {}))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert taken(dsn) == Counter(range(4))


async def test_consumers_that_meet_in_many_partitions_do_not_wait_in_a_circle(
    dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    feeds = {partition: Feed() for partition in range(6)}
    records = [
        record for partition, feed in feeds.items() for record in numbers(feed, range(3), partition=partition)
    ]
    takers = [consumer(pool) for _ in range(4)]
    orders = [records, records[::-1], records[9:] + records[:9], records[::2] + records[1::2]]
    async with asyncio.timeout(20):
        await asyncio.gather(*(taker.take(order, {}) for taker, order in zip(takers, orders, strict=True)))
    assert taken(dsn) == Counter({0: 6, 1: 6, 2: 6})
    assert set(next_offsets(dsn).values()) == {3}


async def test_a_zombie_changes_nothing(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """A consumer that was stopped in its transaction loses its session, not the others' time; then it repeats."""
    records = numbers(Feed(), range(3))
    attempts = 0
    asleep, awake = asyncio.Event(), asyncio.Event()

    async def stopped(taken_in: Sequence[Record], effects: Effects) -> None:
        nonlocal attempts
        attempts += 1
        await tally(taken_in, effects)
        if attempts == 1:
            await effects.connection.execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
            asleep.set()
            await awake.wait()

    zombie = asyncio.create_task(consumer(pool, stopped).take(records[:2], {}))
    await asleep.wait()
    await consumer(pool).take(records, {})
    assert taken(dsn) == Counter(range(3))
    awake.set()
    await zombie
    # It was told that all it holds was taken before, and never called its handler again.
    assert attempts == 1
    assert taken(dsn) == Counter(range(3))
    assert next_offsets(dsn) == {HERE: 3}
    assert unsent(dsn) == 3


async def test_a_batch_that_takes_too_long_is_taken_in_parts(
    dsn: str, pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a starved machine a batch may keep PostgreSQL waiting until it gives the session up, every time anew."""
    monkeypatch.setattr(shared.consumer, "PATIENCE_SECONDS", 0.1)
    sizes = []

    async def starved(records: Sequence[Record], effects: Effects) -> None:
        sizes.append(len(records))
        await effects.connection.execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        await asyncio.sleep(0.02 * len(records))
        await tally(records, effects)

    async with asyncio.timeout(20):
        await consumer(pool, starved).take(numbers(Feed(), range(16)), {})
    assert sizes[0] == 16
    assert max(sizes[3:]) <= 8
    assert taken(dsn) == Counter(range(16))
    assert next_offsets(dsn) == {HERE: 16}


async def test_a_lock_is_not_waited_for_without_end(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """PostgreSQL gives up for the waiting one, which says so and tries again."""
    holder = await connect(dsn, role=SERVICE, application_name="holder")
    impatient = await connect(dsn, role=SERVICE, application_name="impatient")
    try:
        assert await impatient.fetchval("SHOW lock_timeout") == "5s"
        assert await impatient.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"
        await consumer(pool).take(numbers(Feed(), [0]), {})
        holding = holder.transaction()
        await holding.start()
        assert await inbox.lock(holder, [HERE]) == {HERE: 1}
        await impatient.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await inbox.lock(impatient, [HERE])
        await holding.rollback()
        async with impatient.transaction():
            assert await inbox.lock(impatient, [HERE]) == {HERE: 1}
    finally:
        await holder.close()
        await impatient.close()


async def test_a_consumer_that_waits_too_long_for_a_lock_tries_again(dsn: str) -> None:
    session = {"role": "trueward_alerting", "search_path": "alerting", "lock_timeout": "50ms"}
    records = numbers(Feed(), range(4))
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3, init=_prepare, server_settings=session) as pool:
        await consumer(pool).take(records[:1], {})
        async with pool.acquire() as holder, holder.transaction():
            await inbox.lock(holder, [HERE])
            with capture_logs() as logs:
                waiting = asyncio.create_task(consumer(pool).take(records, {}))
                await eventually(_now(logs), lambda lines: len(lines) > 1, "it tries again")
        await waiting
    assert {line["fault"] for line in logs} == {"LockNotAvailableError"}
    assert taken(dsn) == Counter(range(4))


def _now(seen: list[Any]) -> Callable[[], Awaitable[list[Any]]]:
    async def look() -> list[Any]:
        return seen

    return look


async def test_the_lock_holds_from_the_first_record_of_a_partition(dsn: str) -> None:
    """Rows that are missing are made and locked: two first consumers of a partition take turns as well."""
    one = await connect(dsn, role=SERVICE, application_name="one")
    two = await connect(dsn, role=SERVICE, application_name="two")
    try:
        transaction = one.transaction()
        await transaction.start()
        assert await inbox.lock(one, [HERE, THERE]) == {HERE: 0, THERE: 0}
        await inbox.advance(one, [Advance(HERE, 7)])

        async def lock_second() -> dict[Place, int]:
            async with two.transaction():
                return await inbox.lock(two, [HERE, THERE])

        waiting = asyncio.create_task(lock_second())
        pid = two.get_server_pid()
        await eventually(lambda: one.fetchval(BLOCKED, pid), bool, "the second waits")
        await transaction.commit()
        assert await waiting == {HERE: 7, THERE: 0}
    finally:
        await one.close()
        await two.close()


async def test_reset_forgets_one_topic_or_all(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    records = numbers(Feed(), range(3))
    await consumer(pool).take(records, {})
    other = Feed().record(INPUT, {"n": 3})
    await consumer(pool).take([Record("elsewhere", 2, 0, RECEIVED_AT, None, other.value)], {})
    assert await inbox.reset(dsn, service=SERVICE, topic=INPUT.name) == 1
    assert next_offsets(dsn) == {("elsewhere", 2): 1}
    await consumer(pool).take(records, {})
    assert taken(dsn) == Counter({0: 2, 1: 2, 2: 2, 3: 1})
    assert await inbox.reset(dsn, service=SERVICE, topic="nowhere") == 0
    assert await inbox.reset(dsn, service=SERVICE) == 2
    assert next_offsets(dsn) == {}
    await consumer(pool).take(records, {})
    assert await inbox.reset_all(dsn) == 1


async def test_events_leave_in_the_order_of_their_emission(dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """Across statements too large to be inserted in any order but the one asked for."""
    feed = Feed()
    taker = consumer(pool)
    for start in range(0, 3_000, 1_000):
        await taker.take(numbers(feed, range(start, start + 1_000)), {})
    rows = query(dsn, "SELECT convert_from(value, 'UTF8')::json ->> 'n' FROM alerting.outbox ORDER BY id")
    assert [int(n) for (n,) in rows] == list(range(3_000))
