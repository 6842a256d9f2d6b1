"""A restored backup: what was taken in after it is read again, and what was published after it is said once."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from deploy.local.broker import Broker
from services.alerting.app import DEFINITION as ALERTING
from services.alerting.settings import AlertingSettings
from services.metrics.app import DEFINITION as METRICS
from services.metrics.settings import MetricsSettings
from shared.broker import create_missing_topics
from shared.contracts.base import canonical_json
from shared.topics import LABELS, PREDICTIONS
from tests.kernel_world import eventually, producing, query, read_topic, running

PAIRS = 40
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A deployment whose database has a backup."""

    def __init__(self, broker: Broker, prefix: str, dsn: str) -> None:
        self.given: dict[str, Any] = {
            "kafka_bootstrap_servers": broker.bootstrap_servers,
            "kafka_idempotent_producer": broker.idempotent_producer,
            "kafka_true_end_offsets": broker.true_end_offsets,
            "topic_prefix": prefix,
            "snapshot_interval": timedelta(seconds=1),
            "session_timeout_seconds": 6,
        }
        self.prefix, self.servers, self.dsn = prefix, broker.bootstrap_servers, dsn

    @asynccontextmanager
    async def served(self, *, metrics: str, alerting: str) -> AsyncIterator[None]:
        """While both services run, each on a database."""
        one = MetricsSettings(postgres_dsn=SecretStr(metrics), **self.given)
        other = AlertingSettings(postgres_dsn=SecretStr(alerting), **self.given)
        async with running(one, service=METRICS), running(other, service=ALERTING):
            yield

    async def label(self, outcome: int, hours: int) -> None:
        """Say of every entity what happened, as was seen so many hours after the beginning."""
        observed_at = (BEGAN + timedelta(hours=hours)).isoformat()
        async with producing(self.servers) as producer:
            for number in range(PAIRS):
                event = {"entity_id": f"p{number}", "outcome": outcome, "observed_at": observed_at}
                await producer.send(self.prefix + LABELS.name, canonical_json(event))
            await producer.flush()

    async def predict(self) -> None:
        async with producing(self.servers) as producer:
            for number in range(PAIRS):
                event = {
                    "prediction_id": f"p{number}",
                    "model": "m",
                    "model_version": "1",
                    "predicted_at": BEGAN.isoformat(),
                    "probability": 0.9,
                }
                await producer.send(self.prefix + PREDICTIONS.name, canonical_json(event))
            await producer.flush()
            # Otherwise snapshots of the last seven days would hold nothing of the beginning of 2026.
            policy = {"model": "m", "window": "all"}
            await producer.send_and_wait(f"{self.prefix}policies", canonical_json(policy))

    async def judged(self, dsn: str, above: int, accuracy: float) -> int:
        """Wait until a snapshot above that one has this accuracy and is judged; returns its sequence."""

        async def look() -> tuple[int, int]:
            made, seen = await asyncio.to_thread(
                lambda: (
                    query(
                        self.dsn_of_metrics,
                        "SELECT coalesce(max(sequence), 0) FROM metrics.snapshot "
                        "WHERE (document -> 'metrics' ->> 'accuracy')::float8 = %s",
                        accuracy,
                    ),
                    query(dsn, "SELECT coalesce(max(snapshot_sequence), 0) FROM alerting.models"),
                )
            )
            return int(made[0][0]), int(seen[0][0])

        made, seen = await eventually(
            look, lambda found: found[0] > above and found[1] >= found[0], "judged", seconds=90
        )
        return max(made, seen)

    dsn_of_metrics = ""

    async def published(self, topic: str, sequence: str, last: int) -> dict[int, set[bytes]]:
        """What was published under each number of the model."""
        found = await read_topic(
            self.servers,
            self.prefix + topic,
            lambda records: any(json.loads(record.value)[sequence] >= last for record in records),
        )
        bodies: dict[int, set[bytes]] = defaultdict(set)
        for record in found:
            bodies[json.loads(record.value)[sequence]].add(record.value)
        return bodies


@pytest.fixture
async def world(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> World:
    made = World(kafka_broker, topic_prefix, database_dsn)
    await create_missing_topics(MetricsSettings(postgres_dsn=SecretStr(database_dsn), **made.given))
    return made


@pytest.fixture
def backup(postgres_server: str, database_dsn: str) -> Iterator[str]:
    """The DSN of the database's backup; ``copy`` makes it."""
    name = f"{database_dsn.rpartition('/')[2]}_backup"
    yield f"{database_dsn.rpartition('/')[0]}/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def copy(server: str, dsn: str, to: str) -> None:
    """Copy a database that nobody is connected to."""
    names = to.rpartition("/")[2], dsn.rpartition("/")[2]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {names[0]} TEMPLATE {names[1]}".encode())


async def a_backup_and_what_came_after_it(world: World, server: str, backup: str) -> int:
    """A healthy model, a backup, then a bad model; returns the last sequence published by then."""
    world.dsn_of_metrics = world.dsn
    await world.predict()
    await world.label(1, 1)
    async with world.served(metrics=world.dsn, alerting=world.dsn):
        early = await world.judged(world.dsn, 0, 1.0)
    copy(server, world.dsn, backup)
    await world.label(0, 2)
    async with world.served(metrics=world.dsn, alerting=world.dsn):
        return await world.judged(world.dsn, early + 1, 0.0)


async def assert_one_history(world: World, metrics: str, last: int) -> None:
    """One body a number, no number missing; the database that goes on knows all of them."""
    snapshots = await world.published("snapshots", "sequence", last)
    assert {sequence: len(bodies) for sequence, bodies in snapshots.items() if len(bodies) > 1} == {}
    assert sorted(snapshots) == list(range(1, max(snapshots) + 1))
    moments = [json.loads(min(snapshots[sequence]))["as_of"] for sequence in sorted(snapshots)]
    assert moments == sorted(set(moments))
    rows = await asyncio.to_thread(query, metrics, "SELECT sequence FROM metrics.snapshot ORDER BY sequence")
    assert [sequence for (sequence,) in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= last
    alerts = await world.published("alerts", "alert_sequence", 1)
    assert {sequence: len(bodies) for sequence, bodies in alerts.items() if len(bodies) > 1} == {}
    assert sorted(alerts) == list(range(1, max(alerts) + 1))


@pytest.mark.slow
async def test_a_restored_database_reads_on_and_counts_on(world: World, postgres_server: str, backup: str) -> None:
    """Both services' schemas are of an hour ago; Kafka is of now."""
    before = await a_backup_and_what_came_after_it(world, postgres_server, backup)
    world.dsn_of_metrics = backup
    async with world.served(metrics=backup, alerting=backup):
        last = await world.judged(backup, before, 0.0)
        await world.label(1, 3)
        last = await world.judged(backup, last, 1.0)
    await assert_one_history(world, backup, last)


@pytest.mark.slow
async def test_metrics_alone_restored_is_heard_at_once_by_who_was_not(
    world: World, postgres_server: str, backup: str
) -> None:
    """Without its own publications it would number anew, and alerting drop it until it had caught up."""
    before = await a_backup_and_what_came_after_it(world, postgres_server, backup)
    world.dsn_of_metrics = backup
    async with world.served(metrics=backup, alerting=world.dsn):
        last = await world.judged(world.dsn, before, 0.0)
    await assert_one_history(world, backup, last)


@pytest.mark.slow
async def test_alerting_alone_restored_says_again_what_it_said(
    world: World, postgres_server: str, backup: str
) -> None:
    """The same snapshots, judged from the same state, are the same transitions under the same numbers."""
    before = await a_backup_and_what_came_after_it(world, postgres_server, backup)
    async with world.served(metrics=world.dsn, alerting=backup):
        last = await world.judged(backup, before, 0.0)
    await assert_one_history(world, world.dsn, last)
