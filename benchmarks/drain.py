"""How fast the metrics service drains preloaded topics, as a ratio to a bare consumer of the same topics.

``make bench`` runs it on parts of the local stack, started for it; ``--kafka HOST:PORT --postgres DSN`` uses what
is there. The work: predictions and labels of ~200 bytes, 20 models by Zipf's law, 5 %
duplicates, 2 % corrections, 10 % of the labels before their prediction; durable and exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import asyncpg
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.local import broker, postgres
from deploy.local.processes import ManagedProcess
from shared.broker import create_missing_topics
from shared.database import migrate
from shared.settings import Settings
from shared.topics import LABELS, PREDICTIONS

START = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = 20
SHARE_EARLY, SHARE_DUPLICATE, SHARE_CORRECTED = 0.10, 0.05, 0.02


def events(count: int, seed: int) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(topic, key, value) in the order of publication; ``count`` predictions and as many labels, roughly."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, MODELS + 1)]
    for number in range(count):
        moment = START + timedelta(seconds=number * 0.1)
        entity = f"entity-{seed}-{number:012d}"
        probability = rng.random()
        prediction: dict[str, object] = {
            "prediction_id": entity,
            "model": f"model-{rng.choices(range(MODELS), weights)[0]:02d}",
            "model_version": "2026-01",
            "predicted_at": moment.isoformat(),
            "probability": round(probability, 6),
            "segment": {"region": "north-west"},
        }
        outcome = int(rng.random() < probability)
        label: dict[str, object] = {
            "entity_id": entity,
            "outcome": outcome,
            "observed_at": (moment + timedelta(minutes=10)).isoformat(),
            "source": "benchmark",
        }
        pair = [(PREDICTIONS.name, entity, prediction), (LABELS.name, entity, label)]
        if rng.random() < SHARE_EARLY:
            pair.reverse()
        yield from pair
        if rng.random() < SHARE_DUPLICATE:
            yield rng.choice(pair)
        if rng.random() < SHARE_CORRECTED:
            later = (moment + timedelta(minutes=20)).isoformat()
            yield LABELS.name, entity, {**label, "outcome": 1 - outcome, "observed_at": later}


async def preload(settings: Settings, count: int) -> int:
    """Publish the events; returns how many records there are."""
    await create_missing_topics(settings)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, linger_ms=20, max_batch_size=256 * 1024
    )
    await producer.start()
    sent = 0
    for topic, key, value in events(count, 1):
        await producer.send(settings.topic_prefix + topic, json.dumps(value).encode(), key=key.encode())
        sent += 1
    await producer.stop()
    return sent


async def bare_drain(settings: Settings, total: int) -> float:
    """Seconds that aiokafka's own consumer takes to fetch every record, without looking at any."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    topics = (PREDICTIONS, LABELS)
    consumer.assign(
        [
            TopicPartition(settings.topic_prefix + topic.name, number)
            for topic in topics
            for number in range(topic.partitions)
        ]
    )
    await consumer.seek_to_beginning()
    fetched, started = 0, time.perf_counter()
    while fetched < total:
        batches = await consumer.getmany(timeout_ms=1000, max_records=settings.max_batch_records)
        fetched += sum(map(len, batches.values()))
    elapsed = time.perf_counter() - started
    await consumer.stop()
    return elapsed


async def service_drain(settings: Settings, total: int) -> float:
    """Seconds from the first durable record to the last, with the real service as a process of its own."""
    environment = {
        **os.environ,
        "TRUEWARD_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TRUEWARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
        "TRUEWARD_HTTP_PORT": "0",
        "TRUEWARD_LOG_LEVEL": "WARNING",
    }
    connection = await asyncpg.connect(settings.postgres_dsn.get_secret_value())
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trueward", "service", "metrics", env=environment
    )
    query = "SELECT coalesce(sum(next_offset), 0)::bigint FROM metrics.inbox"
    first_taken, started = 0, None
    try:
        while (taken := await connection.fetchval(query)) < total:
            if started is None and taken:
                first_taken, started = taken, time.perf_counter()
            await asyncio.sleep(0.02)
        if started is None:
            raise RuntimeError("everything was drained between two looks; take more events")
        return (time.perf_counter() - started) * total / (total - first_taken)
    finally:
        service.terminate()
        await service.wait()
        await connection.close()


async def fresh_database(dsn: str) -> str:
    """A new, migrated database beside the one that ``dsn`` names."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    connection = await asyncpg.connect(dsn)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    fresh = dsn.rsplit("/", 1)[0] + "/" + name
    await asyncio.to_thread(migrate, fresh)
    return fresh


@contextlib.contextmanager
def local_parts() -> Iterator[tuple[str, str]]:
    """A broker and a PostgreSQL of the local stack for the time of the run: bootstrap servers and DSN."""
    folder = Path(tempfile.mkdtemp(prefix="trueward-bench-"))
    folder.chmod(0o755)
    kafka, server = broker.choose(data_dir=folder), postgres.choose(data_dir=folder)
    processes = []
    try:
        for plan in (server, kafka):
            plan.prepare()
            for spec in plan.processes:
                processes.append(ManagedProcess(spec, folder / f"{spec.name}.log"))
                processes[-1].start()
                asyncio.run(processes[-1].wait_ready())
        print(kafka.broker.line(), server.line, sep="\n")
        yield kafka.broker.bootstrap_servers, server.dsn.rpartition("/")[0] + "/postgres"
    finally:
        for process in reversed(processes):
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def measure(kafka: str, postgres: str, count: int, runs: int) -> None:
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    base = Settings(kafka_bootstrap_servers=kafka, topic_prefix=prefix, postgres_dsn=postgres)
    total = await preload(base, count)
    print(f"{total} records preloaded")
    for run in range(runs):
        bare = await bare_drain(base, total)
        fresh = Settings(
            kafka_bootstrap_servers=kafka, topic_prefix=prefix, postgres_dsn=await fresh_database(postgres)
        )
        # A group that has read nothing: the inbox of a fresh database sends the consumer to the beginning.
        service = await service_drain(fresh, total)
        print(
            f"run {run + 1}: bare {total / bare:,.0f}/s, metrics service {total / service:,.0f}/s, "
            f"ratio {bare / service:.3f}"
        )


def main(
    kafka: Annotated[str | None, typer.Option(help="Bootstrap servers.")] = None,
    postgres_dsn: Annotated[
        str | None, typer.Option("--postgres", help="DSN with the right to create databases.")
    ] = None,
    count: Annotated[int, typer.Option(help="Predictions, and as many labels.")] = 100_000,
    runs: Annotated[int, typer.Option(help="Interleaved runs of both.")] = 2,
) -> None:
    """Preload, then drain by turns with a bare consumer and with the service."""
    if (kafka is None) != (postgres_dsn is None):
        raise typer.BadParameter("give both --kafka and --postgres, or neither")
    if kafka is not None and postgres_dsn is not None:
        asyncio.run(measure(kafka, postgres_dsn, count, runs))
        return
    with local_parts() as (servers, dsn):
        asyncio.run(measure(servers, dsn, count, runs))


if __name__ == "__main__":
    typer.run(main)
