"""A bare hop: ``python -m benchmarks.hops FROM TO`` sends on what it reads, with the services' settings."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from aiokafka import AIOKafkaConsumer

from shared.broker import FETCH_WAIT_MS, make_producer
from shared.settings import Settings
from shared.topics import MAX_RECORD_BYTES


def make_consumer(settings: Settings, topic: str, group: str | None = None) -> AIOKafkaConsumer:
    """A consumer as ``shared.broker.subscribe`` makes it, without FastStream around it."""
    return AIOKafkaConsumer(
        topic,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_seconds * 1000,
        heartbeat_interval_ms=settings.session_timeout_seconds * 1000 // 3,
        max_partition_fetch_bytes=4 * MAX_RECORD_BYTES,
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )


async def forward(source: str, target: str) -> None:
    """Until cancelled."""
    settings = Settings()
    consumer, producer = make_consumer(settings, source, f"{source}-hop"), make_producer(settings, "hop")
    await consumer.start()
    await producer.start()
    try:
        async for record in consumer:
            await producer.send_and_wait(target, record.value, key=record.key)
    finally:
        await producer.stop()
        await consumer.stop()


async def _main() -> None:
    task = asyncio.create_task(forward(*sys.argv[1:]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    asyncio.run(_main())
