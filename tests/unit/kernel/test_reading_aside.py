"""The reader beside the consumer: whatever cuts it short, it is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.broker import holding_records
from shared.settings import Settings


async def test_a_reader_whose_start_is_cut_short_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a boundary of the wall clock that waits no longer for a slow broker: each would leave a reader behind."""
    began = asyncio.Event()
    closed: list[AIOKafkaConsumer] = []
    stop = AIOKafkaConsumer.stop

    async def never_starts(_self: AIOKafkaConsumer) -> None:
        began.set()
        await asyncio.Event().wait()

    async def watched_stop(self: AIOKafkaConsumer, *arguments: Any) -> None:
        closed.append(self)
        await stop(self, *arguments)

    monkeypatch.setattr(AIOKafkaConsumer, "start", never_starts)
    monkeypatch.setattr(AIOKafkaConsumer, "stop", watched_stop)
    asking = asyncio.create_task(holding_records(Settings(), {TopicPartition("t", 0): (0, 1)}))
    await began.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(closed) == 1
