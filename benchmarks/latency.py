"""How soon an alert follows the label that causes it, on an idle system, against three bare Kafka hops."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import quantiles

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.dataset import Label, Prediction
from benchmarks.hops import make_consumer
from benchmarks.parts import Parts
from benchmarks.results import Measured
from benchmarks.session import Session
from deploy.local.processes import ManagedProcess, ProcessSpec
from shared.broker import FETCH_WAIT_MS, create_missing_topics, make_producer
from shared.settings import Settings
from shared.topics import ALERTS, LABELS, POLICIES, PREDICTIONS, SNAPSHOTS

NAMES = ("alert_p99_vs_three_hops",)
HOPS = 3
HOP_PARTITIONS = 4
PATIENCE_SECONDS = 30.0
MODEL, ENTITY = "watched", "watched-1"
POLICY = {
    "model": MODEL,
    "window": "all",
    "min_evaluated": 1,
    "rules": {"accuracy_breach": {"below": 0.5}, "brier_breach": None, "data_stale": None, "pipeline_stale": None},
}


async def measure(session: Session) -> dict[str, Measured]:
    """One label, then one message over the hops, and so on by turns. A label makes the model right or wrong."""
    parts = session.parts
    async with parts.database() as database:
        settings = parts.settings(
            prefix=f"bench-{uuid.uuid4().hex[:8]}.", database=database, snapshot_interval="1s"
        )
        await create_missing_topics(settings)
        async with _system(parts, settings), _hops(parts, settings) as hops, _clients(settings) as clients:
            await clients.begin()
            alerts, crossings = [], []
            for number in range(session.scale.labels_timed):
                alerts.append(await clients.alert(outcome=number % 2))
                # A fetch that finds nothing lasts so long, and leaves out the partition that was just read: a
                # crossing sooner than that after the last would be no idle one.
                await asyncio.sleep(FETCH_WAIT_MS / 1000)
                crossings.append(await hops.seconds())
    run = {
        **_percentiles("alert", [alert.heard for alert in alerts]),
        **_percentiles("hops", crossings),
        **_percentiles("snapshot_published", [alert.snapshot_published for alert in alerts]),
        **_percentiles("alert_published", [alert.published for alert in alerts]),
    }
    return {NAMES[0]: Measured(run["alert_p99_ms"] / run["hops_p99_ms"], (run,))}


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49] * 1000, f"{name}_p99_ms": cuts[98] * 1000}


@dataclass(frozen=True, slots=True)
class Alert:
    """Seconds from the boundary until the broker had the snapshot and the alert, and a consumer the alert."""

    snapshot_published: float
    published: float
    heard: float


@asynccontextmanager
async def _system(parts: Parts, settings: Settings) -> AsyncIterator[None]:
    processes = [parts.service(name, settings) for name in ("metrics", "alerting")]
    try:
        for process in processes:
            process.start()
        for process in processes:
            await process.wait_ready()
        yield
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)


class Ear:
    """Reads a topic all the time, as whoever waits for alerts does; tells each record with when it was heard.

    A consumer that is read now and then would hear late: what it has fetched and nobody took keeps that partition
    out of its next fetch.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._heard: asyncio.Queue[tuple[ConsumerRecord[bytes, bytes], float]] = asyncio.Queue()

    async def listen(self) -> None:
        """Until cancelled."""
        async for record in self._consumer:
            self._heard.put_nowait((record, time.time()))

    async def next(self) -> tuple[ConsumerRecord[bytes, bytes], float]:
        """The next record, and when it was heard, in seconds since 1970."""
        return await self._heard.get()


@dataclass
class Clients:
    """Who publishes labels, and who listens for alerts."""

    settings: Settings
    producer: AIOKafkaProducer
    alerts: Ear
    snapshots: Ear
    phase: random.Random

    async def begin(self) -> None:
        """Give the model its policy and one prediction that it is right about."""
        await self._send(POLICIES.name, json.dumps(POLICY).encode(), MODEL)
        prediction = Prediction(ENTITY, MODEL, time.time_ns() // 1000, 900)
        await self._send(PREDICTIONS.name, prediction.value(), ENTITY)
        await self._label(outcome=1)
        # A first breach and its end, not timed: everything has run once then.
        await self.alert(outcome=0)
        await self.alert(outcome=1)

    async def alert(self, *, outcome: int) -> Alert:
        """Send a label and wait for the alert's change; timed from the boundary whose snapshot includes it."""
        await asyncio.sleep(self.phase.uniform(0, 0.8))
        await self._label(outcome=outcome)
        awaited = "resolved" if outcome else "opened"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                record, heard = await self.alerts.next()
                change = json.loads(record.value)
                if change["transition"] == awaited:
                    break
            boundary = datetime.fromisoformat(change["as_of"]).timestamp()
            snapshot, _ = await self.snapshots.next()
            while json.loads(snapshot.value)["snapshot_id"] != change["snapshot_id"]:
                snapshot, _ = await self.snapshots.next()
        return Alert(snapshot.timestamp / 1000 - boundary, record.timestamp / 1000 - boundary, heard - boundary)

    async def _label(self, *, outcome: int) -> None:
        label = Label(ENTITY, outcome, time.time_ns() // 1000)
        await self._send(LABELS.name, label.value(), ENTITY)

    async def _send(self, topic: str, value: bytes, key: str) -> None:
        await self.producer.send_and_wait(self.settings.topic_prefix + topic, value, key=key.encode())


@asynccontextmanager
async def _clients(settings: Settings) -> AsyncIterator[Clients]:
    producer = make_producer(settings, "bench")
    consumers = [make_consumer(settings, settings.topic_prefix + topic.name) for topic in (ALERTS, SNAPSHOTS)]
    alerts, snapshots = (Ear(consumer) for consumer in consumers)
    listening: list[asyncio.Task[None]] = []
    try:
        for client in (producer, *consumers):
            await client.start()
        listening = [asyncio.create_task(ear.listen()) for ear in (alerts, snapshots)]
        yield Clients(settings, producer, alerts, snapshots, random.Random(1))
    finally:
        for task in listening:
            task.cancel()
        for client in (*consumers, producer):
            await client.stop()


@dataclass
class Hops:
    """Both ends of a chain of topics with a process between each two."""

    first: str
    producer: AIOKafkaProducer
    last: Ear

    async def seconds(self) -> float:
        """From before it is sent until it is heard at the other end."""
        token = uuid.uuid4().bytes * 12  # as large as a label
        sent = time.time()
        await self.producer.send_and_wait(self.first, token, key=token[:16])
        async with asyncio.timeout(PATIENCE_SECONDS):
            record, heard = await self.last.next()
            while record.value != token:
                record, heard = await self.last.next()
        return heard - sent


@asynccontextmanager
async def _hops(parts: Parts, settings: Settings) -> AsyncIterator[Hops]:
    topics = [f"{settings.topic_prefix}hop-{number}" for number in range(1, HOPS + 1)]
    await asyncio.to_thread(_create, settings, topics)
    processes = [
        ManagedProcess(
            ProcessSpec(
                name="hop",
                argv=(sys.executable, "-m", "benchmarks.hops", source, target),
                env=parts.broker.service_environment(),
            ),
            parts.folder / "hop.log",
        )
        for source, target in pairwise(topics)
    ]
    producer, last = make_producer(settings, "bench"), make_consumer(settings, topics[-1])
    listening: asyncio.Task[None] | None = None
    try:
        for process in processes:
            process.start()
        await producer.start()
        await last.start()
        await last.end_offsets([TopicPartition(topics[-1], number) for number in range(HOP_PARTITIONS)])
        ear = Ear(last)
        listening = asyncio.create_task(ear.listen())
        hops = Hops(topics[0], producer, ear)
        for _ in range(10):  # nothing is timed before the way is open and warm
            await hops.seconds()
        yield hops
    finally:
        if listening is not None:
            listening.cancel()
        await last.stop()
        await producer.stop()
        for process in processes:
            await asyncio.to_thread(process.stop)


def _create(settings: Settings, topics: list[str]) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for created in admin.create_topics([NewTopic(name, HOP_PARTITIONS, 1) for name in topics]).values():
        created.result()
