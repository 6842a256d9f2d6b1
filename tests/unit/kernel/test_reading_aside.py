"""The reader that looks whether a log holds records."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from aiokafka import TopicPartition

from shared.broker import holding_records
from shared.settings import Settings


async def test_a_reader_that_is_given_up_before_it_has_started_is_closed() -> None:
    """The wall clock gives it two seconds at each boundary: what were left open would add up."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    connected = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        try:
            await _reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings(kafka_bootstrap_servers=f"127.0.0.1:{port}")
    asking = asyncio.create_task(holding_records(settings, {TopicPartition("t", 0): (0, 1)}))
    await connected.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del asking
    server.close()
    gc.collect()
    assert [complaint["message"] for complaint in complaints] == []
