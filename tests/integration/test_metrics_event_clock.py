"""The event clock between real topics: one instance, two, or one killed in the middle give the same bytes."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.broker import Broker
from shared.broker import create_missing_topics
from shared.contracts.base import canonical_json
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.settings import Settings
from shared.topics import LABELS, PIPELINE_RUNS, PREDICTIONS, Topic
from tests.integration.conftest import RunningCommand, Start, free_port
from tests.kernel_world import eventually, producing, read_topic
from tests.metrics_world import (
    MINUTE,
    START_SECONDS,
    Fact,
    MetricsWorld,
    at,
    label,
    policy,
    prediction,
    run,
    version,
)
from tests.plain_metrics import Plain

BOUNDARIES = 24
PREDICTIONS_MADE = 240
MODELS = ("arrivals", "departures")
OBSERVED = (PREDICTIONS, LABELS, PIPELINE_RUNS)


def history(chance: Random) -> list[Fact]:
    """A while of two models, some of it a few minutes out of order, labels early, late and corrected."""
    facts: list[Fact] = []
    for number in range(PREDICTIONS_MADE):
        seconds = number * BOUNDARIES * MINUTE / PREDICTIONS_MADE
        model = MODELS[number % 2]
        made = max(0.0, round(seconds - chance.choice([0, 0, 0, 90, 200]), 3))
        segment = {"region": chance.choice(["eu", "us", "mars"])}
        facts.append(
            prediction(
                f"p{number}", made, chance.randrange(1001) / 1000, model=model, version="1", segment=segment
            )
        )
        for delay in chance.choice([(), (30,), (30,), (-20,), (300, 310)]):
            observed = max(0.0, round(seconds + delay, 3))
            facts.append(label(f"p{number}", min(observed, BOUNDARIES * MINUTE - 0.001), chance.randrange(2)))
        if number % 50 == 0:
            facts.append(run(made))
    return facts


OPERATORS: list[Fact] = [
    policy(model="arrivals", window="1h", segments={"region": ["eu", "us"]}),
    version("1", 5 * MINUTE, model="arrivals", trained_through=at(3 * MINUTE)),
    version("2", 12 * MINUTE, "candidate", model="departures"),
]


class Deployment:
    """The metrics service on topics and a database, in any number of processes."""

    def __init__(self, broker: Broker, prefix: str, dsn: str, pool: asyncpg.Pool[Any], start: Start) -> None:
        self.broker, self.prefix, self.pool = broker, prefix, pool
        self._start = start
        self._environment = {
            **broker.service_environment(),
            "TRUEWARD_POSTGRES_DSN": dsn,
            "TRUEWARD_TOPIC_PREFIX": prefix,
            "TRUEWARD_SESSION_TIMEOUT_SECONDS": "6",
            "TRUEWARD_MAX_BATCH_RECORDS": "30",
            "TRUEWARD_CLOCK": "event",
            "TRUEWARD_SNAPSHOT_INTERVAL": "60s",
        }

    async def instance(self) -> tuple[RunningCommand, str]:
        """One more process, once it has its partitions."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process = self._start("service", "metrics", "--http-port", str(port), **self._environment)
        await asyncio.to_thread(process.wait_until_answers, url)
        return process, url

    async def clock(self) -> dict[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM published_clock")
        return {} if row is None else dict(row)

    async def as_of(self) -> float:
        """The newest boundary that was cut, in seconds of the tests' time."""
        moment = (await self.clock()).get("last_as_of")
        return -1 if moment is None else moment.timestamp() - START_SECONDS

    async def until(self, seconds: float) -> None:
        """Wait until a boundary was cut."""
        await eventually(self.as_of, lambda seen: seen >= seconds, f"cut at {seconds}", seconds=60)

    async def until_all_is_published(self) -> None:
        """Wait until the last boundary was cut, and its snapshots are on their topic."""
        await self.until(BOUNDARIES * MINUTE)

        async def unsent() -> int:
            count: int = await self.pool.fetchval("SELECT unsent FROM published_outbox")
            return count

        await eventually(unsent, lambda count: count == 0, "all published")

    async def figures(self) -> tuple[list[bytes], dict[Any, Any]]:
        """Every snapshot of this run, and the figures of the newest."""
        rows = await self.pool.fetch("SELECT document FROM published_snapshots ORDER BY model, sequence")
        return [canonical_json(row["document"]) for row in rows], await MetricsWorld(self.pool).figures()


@asynccontextmanager
async def deployed(
    broker: Broker, prefix: str, dsn: str, start: Start
) -> AsyncIterator[tuple[Deployment, AIOKafkaProducer]]:
    settings = Settings(kafka_bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)
    await create_missing_topics(settings)
    pool = await connect_pool(dsn, role="metrics", application_name="test", max_size=2)
    async with producing(broker.bootstrap_servers) as producer:
        yield Deployment(broker, prefix, dsn, pool, start), producer
    await pool.close()


async def publish(producer: AIOKafkaProducer, prefix: str, facts: Iterable[Fact], chance: Random) -> None:
    """Each to any partition of its topic: clients partition as they like, and many send no key."""
    pending = [
        await producer.send(
            prefix + topic.name, canonical_json(event), partition=chance.randrange(topic.partitions)
        )
        for topic, event in facts
    ]
    await asyncio.gather(*pending)


async def tick(
    producer: AIOKafkaProducer, prefix: str, seconds: float, but: tuple[str, int] | None = None
) -> None:
    for topic in OBSERVED:
        for partition in range(topic.partitions):
            if (topic.name, partition) != but:
                await tick_one(producer, prefix, topic, partition, seconds)


async def tick_one(producer: AIOKafkaProducer, prefix: str, topic: Topic, partition: int, seconds: float) -> None:
    await producer.send_and_wait(prefix + topic.name, canonical_json({"tick": at(seconds)}), partition=partition)


async def taken_by(url: str) -> float:
    """How many records an instance has taken in."""
    async with httpx.AsyncClient(trust_env=False) as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("trueward_records_total{"))


@asynccontextmanager
async def nothing_is_taken(dsn: str) -> AsyncIterator[None]:
    """Until the end nobody takes a record in: whoever is quick would have taken all of them otherwise."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics.inbox IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def forget(deployment: Deployment) -> None:
    """The next run finds the same topics and an empty database."""
    await MetricsWorld(deployment.pool).forget()


@pytest.mark.slow
async def test_the_same_topics_give_the_same_bytes_whoever_reads_them(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, start: Start
) -> None:
    facts = history(Random(1))
    end, last = BOUNDARIES * MINUTE, ("labels", 2)
    async with deployed(kafka_broker, topic_prefix, database_dsn, start) as (deployment, producer):
        await publish(producer, topic_prefix, OPERATORS, Random(2))
        await publish(producer, topic_prefix, facts, Random(3))
        await tick(producer, topic_prefix, end, but=last)

        # One instance; a partition without a tick holds the clock, and is named.
        alone, _ = await deployment.instance()
        held = await eventually(deployment.clock, lambda seen: held_by(seen) == last, "the partition is named")
        assert held["last_as_of"] is None or held["last_as_of"].timestamp() - START_SECONDS < end
        await tick_one(producer, topic_prefix, LABELS, 2, end)
        await deployment.until_all_is_published()
        assert alone.stop() == 0
        first = await deployment.figures()
        assert_told_by_the_facts(first, facts)

        # Two share the partitions.
        await forget(deployment)
        async with nothing_is_taken(database_dsn):
            instances = [await deployment.instance() for _ in range(2)]
        await deployment.until_all_is_published()
        assert all([await taken_by(url) > 0 for _, url in instances]), "both took part"
        assert [process.stop() for process, _ in instances] == [0, 0]
        assert await deployment.figures() == first

        # One of two is killed in the middle.
        await forget(deployment)
        async with nothing_is_taken(database_dsn):
            instances = [await deployment.instance() for _ in range(2)]
        await deployment.until(end / 4)
        instances[0][0].stop(signal.SIGKILL)
        assert await deployment.as_of() < end, "it was in the middle"
        await deployment.until_all_is_published()
        assert instances[1][0].stop() == 0
        assert await deployment.figures() == first
    await assert_published_alike(kafka_broker, topic_prefix, first[0])


def held_by(clock: dict[str, Any]) -> tuple[str | None, int | None]:
    return clock.get("held_by_topic"), clock.get("held_by_partition")


def assert_told_by_the_facts(found: tuple[list[bytes], dict[Any, Any]], facts: list[Fact]) -> None:
    """The boundaries are all there, and the last one's figures are those of a plain recomputation."""
    documents = [Snapshot.model_validate_json(document) for document in found[0]]
    for model in MODELS:
        mine = [one for one in documents if one.model == model]
        assert [one.sequence for one in mine] == list(range(1, len(mine) + 1))
        assert [int(one.as_of.timestamp()) - START_SECONDS for one in mine][-1] == BOUNDARIES * MINUTE
    plain = Plain([*facts, *OPERATORS])
    expected = plain.figures(START_SECONDS + BOUNDARIES * MINUTE)
    figures = found[1]
    assert figures.keys() == expected.keys()
    for key, wanted in expected.items():
        assert {name: figures[key][name] for name in wanted} == wanted, key


async def assert_published_alike(broker: Broker, prefix: str, documents: list[bytes]) -> None:
    """On the topic lie the snapshots of all three runs: those of one id have the same bytes."""
    records = await read_topic(
        broker.bootstrap_servers, f"{prefix}snapshots", lambda found: len(found) >= 3 * len(documents)
    )
    said: dict[bytes, set[bytes]] = defaultdict(set)
    for record in records:
        said[dict(record.headers)["ce_id"]].add(record.value or b"")
    assert {ce_id for ce_id, values in said.items() if len(values) > 1} == set()
    assert {value for values in said.values() for value in values} == set(documents)
