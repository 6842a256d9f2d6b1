"""Who computes while a transaction is under way: it where its questions are short, what is prepared where not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from shared import effects
from shared.consumer import Consumer
from shared.effects import Effects
from shared.errors import TruewardError
from shared.reading import Fetched
from shared.settings import Settings
from tests.support import FixedClock

PARTITION = TopicPartition("trueward.labels", 0)


class SlowPool:
    """A database whose first answer is waited for until it is let go."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.error: Exception = TruewardError("no such database")

    @asynccontextmanager
    async def acquire(self) -> Any:
        self.asked.set()
        await self.answer.wait()
        raise self.error
        yield


class World:
    """A consumer of 16 records a transaction at most, one of which is under way."""

    def __init__(self) -> None:
        self.prepared = 0
        self.pool: Any = SlowPool()
        self.offset = 0
        self.consumer = Consumer(
            service="metrics",
            settings=Settings(max_batch_records=16),
            pool=self.pool,
            clock=FixedClock(),
            handler=self._handle,
            prepare=self._prepare,
        )
        self.kafka: Any = SimpleNamespace(assignment=lambda: {PARTITION}, highwater=lambda _: 1)

    async def _handle(self, _records: Any, _effects: Any) -> None:
        raise AssertionError("no transaction comes as far")

    def _prepare(self, records: Any) -> None:
        self.prepared += len(records)

    async def consume(self, count: int) -> None:
        records = [
            ConsumerRecord(*PARTITION, self.offset + place, 0, 1, None, b"{}", None, -1, 2, ())
            for place in range(count)
        ]
        self.offset += count
        await self.consumer.consume(Fetched.of(records), self.kafka)


@pytest.fixture
async def world() -> World:
    world = World()
    await world.consume(1)
    await world.pool.asked.wait()
    return world


async def test_a_little_is_prepared_at_once_and_more_when_the_transaction_has_time(world: World) -> None:
    await world.consume(2)
    assert world.prepared == 3
    waiting = asyncio.create_task(world.consume(4))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert world.prepared == 3
    world.consumer._leisure.set()
    await waiting
    assert world.prepared == 7


async def test_what_waits_goes_on_when_the_transaction_has_ended(world: World) -> None:
    """Also where it failed for good: whoever is next says so."""
    failures: list[BaseException] = []
    world.consumer.on_failure = failures.append
    await world.consume(2)
    waiting = asyncio.create_task(world.consume(4))
    await asyncio.sleep(0)
    world.pool.answer.set()
    with pytest.raises(TruewardError, match="no such database"):
        await waiting
    assert world.prepared == 7
    assert len(failures) == 1


async def test_between_two_attempts_there_is_leisure(world: World) -> None:
    world.pool.error = ConnectionError("away")
    await world.consume(2)
    waiting = asyncio.create_task(world.consume(4))
    await asyncio.sleep(0)
    assert not waiting.done()
    world.pool.answer.set()
    async with asyncio.timeout(10):
        await waiting
        await world.consumer.finish(0.0)
    assert world.prepared == 7


async def test_a_stop_does_not_leave_anybody_waiting(world: World) -> None:
    await world.consume(2)
    waiting = asyncio.create_task(world.consume(4))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await world.consumer.finish(0.05)
        await waiting


@pytest.mark.parametrize(("short_wait_seconds", "is_at_leisure"), [(0.0, True), (1e6, False)])
async def test_of_a_wait_that_may_be_long_it_must_show(
    monkeypatch: pytest.MonkeyPatch, short_wait_seconds: float, is_at_leisure: bool
) -> None:
    monkeypatch.setattr(effects, "SHORT_WAIT_SECONDS", short_wait_seconds)
    leisure = asyncio.Event()
    found = Effects("metrics", SimpleNamespace(), FixedClock().now(), leisure)  # type: ignore[arg-type]  # not asked
    with found.at_leisure_if_long():
        assert not leisure.is_set()
        for _ in range(3):
            await asyncio.sleep(0)
        assert leisure.is_set() == is_at_leisure
    assert not leisure.is_set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not leisure.is_set(), "it shows after the wait is over"
