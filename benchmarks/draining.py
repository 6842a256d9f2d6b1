"""Draining preloaded topics: with the real metrics service, and with a bare consumer that looks at nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.dataset import Bucket, BucketKey, iso
from benchmarks.first_records import FirstRecords, drained_a_second
from benchmarks.parts import PARTITIONS, DataSet, Parts
from benchmarks.usage import cpu_seconds, cpu_seconds_of_family, peak_rss_mb
from deploy.local.processes import ManagedProcess
from shared.settings import Settings
from shared.topics import LABELS, PREDICTIONS

MINUTE_SECONDS = 60
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 900.0
HEAD_START_SECONDS = 7
"""How long before a minute's boundary a service is started, so that its drain meets the boundary."""


class NotExactError(Exception):
    """The service's sums are not those of the plain recomputation: no figure about it means anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """One drain by the service: events a second, CPU seconds a million events by component, and memory.

    CPU is counted from the first durable batch on.
    """

    events_per_second: float
    service_cpu: float
    postgres_cpu: float
    broker_cpu: float
    peak_rss_mb: float
    snapshots: int


async def bare_drain(parts: Parts, data: DataSet) -> float:
    """Events a second of aiokafka's own consumer, which fetches every record and decodes none."""
    settings = parts.settings(prefix=data.prefix, database="postgres")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(
            [
                TopicPartition(settings.topic_prefix + topic.name, number)
                for topic in (PREDICTIONS, LABELS)
                for number in range(PARTITIONS)
            ]
        )
        await consumer.seek_to_beginning()
        fetched, started = 0, time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while fetched < data.records:
                batches = await consumer.getmany(timeout_ms=1000, max_records=settings.max_batch_records)
                fetched += sum(map(len, batches.values()))
        return fetched / (time.perf_counter() - started)
    finally:
        await consumer.stop()


@asynccontextmanager
async def metrics_services(
    parts: Parts, settings: Settings, instances: int
) -> AsyncIterator[list[ManagedProcess]]:
    """So many instances of the metrics service, started together; stopped afterwards."""
    processes = [parts.service("metrics", settings, f"-{number}") for number in range(instances)]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)


Meanwhile = Callable[[int], AbstractAsyncContextManager[None]]
"""What else is done with the first instance's process while it drains."""


async def service_drain(
    parts: Parts,
    data: DataSet,
    *,
    instances: int = 1,
    template: str | None = None,
    meet_boundary: bool = True,
    meanwhile: Meanwhile = lambda _pid: nullcontext(),
) -> Drained:
    """Drain with the metrics service into a fresh database (or a copy of ``template``), and check every sum.

    Raises ``NotExactError``. ``meet_boundary`` waits so that snapshots of a minute's boundary are cut meanwhile.
    """
    await asyncio.to_thread(parts.forget_group, f"{data.prefix}metrics")
    async with parts.database(template) as database:
        settings = parts.settings(prefix=data.prefix, database=database)
        connection = await asyncpg.connect(parts.dsn(database))
        try:
            if meet_boundary:
                await asyncio.sleep((-HEAD_START_SECONDS - time.time()) % MINUTE_SECONDS)
            first_records = FirstRecords(parts.broker_process.pid)
            async with metrics_services(parts, settings, instances) as processes:
                return await _watch(parts, data, connection, processes, first_records, meanwhile=meanwhile)
        finally:
            await connection.close()


async def _watch(
    parts: Parts,
    data: DataSet,
    connection: asyncpg.Connection[asyncpg.Record],
    processes: Sequence[ManagedProcess],
    first_records: FirstRecords,
    *,
    meanwhile: Meanwhile,
) -> Drained:
    pids = [process.pid for process in processes]
    postgres, broker = parts.postgres_process.pid, parts.broker_process.pid

    def used() -> tuple[float, float, float]:
        return cpu_seconds(pids), cpu_seconds_of_family(postgres), cpu_seconds([broker])

    async with asyncio.timeout(PATIENCE_SECONDS):
        first_taken = await until_taken(connection, 1, first_records.look)
        before = used()
        async with meanwhile(pids[0]):
            await until_taken(connection, data.records)
            ended_at, after = time.time(), used()
    counted = data.records - first_taken
    if counted <= 0:
        raise RuntimeError("everything was drained between two looks; take more events")
    peaks = [peak_rss_mb(pid) for pid in pids]
    await check_exact(connection, data.buckets)
    service_cpu, postgres_cpu, broker_cpu = (
        (end - begin) / counted * 1e6 for begin, end in zip(before, after, strict=True)
    )
    return Drained(
        events_per_second=drained_a_second(data.records, first_records.begun_at, ended_at),
        service_cpu=service_cpu,
        postgres_cpu=postgres_cpu,
        broker_cpu=broker_cpu,
        peak_rss_mb=max(peaks),
        snapshots=await connection.fetchval("SELECT count(*) FROM metrics.snapshot"),
    )


async def until_taken(
    connection: asyncpg.Connection[asyncpg.Record], least: int, look: Callable[[], None] = lambda: None
) -> int:
    """Look until so many records are durable; returns how many are. ``look`` is called at each look."""
    while (found := await taken(connection)) < least:
        look()
        await asyncio.sleep(LOOK_SECONDS)
    return found


async def taken(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Records of predictions and labels that are durable."""
    count: int = await connection.fetchval(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM metrics.inbox WHERE topic IN ($1, $2)",
        PREDICTIONS.name,
        LABELS.name,
    )
    return count


async def check_exact(
    connection: asyncpg.Connection[asyncpg.Record], expected: Mapping[BucketKey, Bucket]
) -> None:
    """Compare every minute's sums with the plain recomputation. Raises ``NotExactError``."""
    rows = await connection.fetch(
        """
        SELECT model.model, bucket.start, bucket.predictions, bucket.evaluated, bucket.correct, bucket.positives,
               bucket.squared_error, bucket.log_loss
        FROM metrics.bucket JOIN metrics.series USING (series_id) JOIN metrics.model USING (model_id)
        WHERE bucket.width = $1 AND series.segment = '' AND (bucket.predictions <> 0 OR bucket.evaluated <> 0)
        """,
        MINUTE_SECONDS,
    )
    found = {
        (row["model"], iso(row["start"] * 1_000_000)[:16]): Bucket(
            row["predictions"],
            row["evaluated"],
            row["correct"],
            row["positives"],
            int(row["squared_error"]),
            int(row["log_loss"]),
        )
        for row in rows
    }
    if found != expected:
        raise NotExactError(f"{len(found)} minutes of models found, and they are not those recomputed")
