"""How long a boundary takes with many models, and whether intake goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

import asyncpg
from aiokafka import AIOKafkaConsumer

from benchmarks.dataset import SECOND, Event, Label, Prediction
from benchmarks.draining import metrics_services, taken, until_taken
from benchmarks.hops import make_consumer
from benchmarks.parts import create_topics, flush, keyed_producer, send
from benchmarks.results import Measured, Run, middle
from benchmarks.session import Session
from shared.settings import Settings
from shared.topics import SNAPSHOTS

NAMES = ("snapshot_10k_models_s",)
DAYS = 4
"""Each model has a prediction and its label on each of so many days."""
A_DAY = 86_400 * SECOND
LABEL_DELAY = 3_600 * SECOND
TRICKLE_SECONDS = 0.05
TRICKLE_EVENTS = 25
PATIENCE_SECONDS = 900.0


def _history(models: int) -> Iterator[Event]:
    now = time.time_ns() // 1_000
    for day in range(DAYS, 0, -1):
        for number in range(models):
            entity = f"history-{day}-{number}"
            moment = now - day * A_DAY + number
            yield Prediction(entity, f"model-{number:05d}", moment, (number * 7) % 1_000)
            yield Label(entity, number % 2, moment + LABEL_DELAY)


async def measure(session: Session) -> dict[str, Measured]:
    """Drain the models' history; then time boundaries, while a few predictions go on coming."""
    parts, scale = session.parts, session.scale
    async with parts.database() as database:
        settings = parts.settings(
            prefix=f"bench-{uuid.uuid4().hex[:8]}.",
            database=database,
            snapshot_interval="2s" if scale.quick else "60s",
        )
        await create_topics(settings)
        records = await asyncio.to_thread(_publish, settings, scale.models)
        connection = await asyncpg.connect(parts.dsn(database))
        try:
            async with metrics_services(parts, settings, 1), _listening(settings) as consumer:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await until_taken(connection, records)
                    session.say(f"{records:,} records of {scale.models:,} models drained")
                    async with _intake(settings, connection) as intake:
                        runs = await _boundaries(consumer, intake, scale.models, scale.boundaries)
        finally:
            await connection.close()
    return {NAMES[0]: Measured(middle(runs, "seconds_to_the_last"), tuple(runs))}


def _publish(settings: Settings, models: int) -> int:
    producer, records = keyed_producer(settings), 0
    for event in _history(models):
        send(producer, settings, event)
        records += 1
    flush(producer)
    return records


@asynccontextmanager
async def _listening(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = make_consumer(settings, settings.topic_prefix + SNAPSHOTS.name)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@dataclass
class Intake:
    """How intake goes: when records became durable, in seconds since 1970."""

    moved_at: list[float] = field(default_factory=list)

    def longest_pause(self, since: float, until: float) -> float:
        """The longest time between two moves, within a span."""
        inside = [since, *(moment for moment in self.moved_at if since <= moment <= until), until]
        return max(after - before for before, after in pairwise(inside))


@asynccontextmanager
async def _intake(settings: Settings, connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[Intake]:
    """Some predictions a second, and a look at how they are taken in, until the block ends."""
    intake = Intake()
    tasks = [
        asyncio.create_task(asyncio.to_thread(_trickle, settings, stop := asyncio.Event())),
        asyncio.create_task(_watch(connection, intake)),
    ]
    try:
        yield intake
    finally:
        stop.set()
        tasks[1].cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def _trickle(settings: Settings, stop: asyncio.Event) -> None:
    producer, sent = keyed_producer(settings), 0
    while not stop.is_set():
        for _ in range(TRICKLE_EVENTS):
            prediction = Prediction(f"trickle-{sent}", "model-00000", time.time_ns() // 1_000, 500)
            send(producer, settings, prediction)
            sent += 1
        producer.flush(1)
        time.sleep(TRICKLE_SECONDS)
    flush(producer)


async def _watch(connection: asyncpg.Connection[asyncpg.Record], intake: Intake) -> None:
    before = 0
    while True:
        now = await taken(connection)
        if now != before:
            intake.moved_at.append(time.time())
            before = now
        await asyncio.sleep(TRICKLE_SECONDS / 2)


async def _boundaries(consumer: AIOKafkaConsumer, intake: Intake, models: int, wanted: int) -> list[Run]:
    """The times of so many boundaries that began after now and have a snapshot of every model."""
    begun = time.time()
    published: dict[str, list[float]] = defaultdict(list)
    runs: list[Run] = []
    while len(runs) < wanted:
        record = await consumer.getone()
        as_of = json.loads(record.value)["as_of"]
        boundary = datetime.fromisoformat(as_of).timestamp()
        if boundary < begun:
            continue
        moments = published[as_of]
        moments.append(record.timestamp / 1000)
        if len(moments) == models:
            moments.sort()
            runs.append(
                {
                    "seconds_to_the_last": moments[-1] - boundary,
                    "seconds_to_the_first": moments[0] - boundary,
                    "longest_gap_seconds": max(
                        (after - before for before, after in pairwise(moments)), default=0.0
                    ),
                    "longest_intake_pause_seconds": intake.longest_pause(boundary, moments[-1]),
                }
            )
    return runs
