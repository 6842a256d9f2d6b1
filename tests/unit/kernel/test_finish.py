"""A stop waits for the transaction that is under way, but not for ever."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from shared.consumer import Consumer
from shared.reading import Fetched
from shared.settings import Settings
from tests.support import FixedClock


class AwayPool:
    """A database that is away, and stays away."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> Any:
        self.asked.set()
        raise ConnectionError("away")
        yield


async def test_a_stop_gives_up_what_cannot_end() -> None:
    async def handler(_records: Any, _effects: Any) -> None:
        raise AssertionError("there is no transaction")

    pool: Any = AwayPool()
    consumer = Consumer(
        service="metrics",
        settings=Settings(),
        pool=pool,
        clock=FixedClock(),
        handler=handler,
        prepare=lambda _records: None,
    )
    partition = TopicPartition("trueward.labels", 0)
    kafka: Any = SimpleNamespace(assignment=lambda: {partition}, highwater=lambda _: 1)
    record = ConsumerRecord("trueward.labels", 0, 0, 0, 1, None, b"{}", None, -1, 2, ())
    await consumer.consume(Fetched.of([record]), kafka)
    await pool.asked.wait()
    async with asyncio.timeout(10):
        await consumer.finish(0.05)
    # Nothing begins after it.
    pool.asked.clear()
    await consumer.consume(Fetched.of([record]), kafka)
    await asyncio.sleep(0)
    assert not pool.asked.is_set()
