"""Senders with transactions leave markers in the logs: offsets that hold no record, at the very end too."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.broker import Broker
from services.metrics.app import DEFINITION
from services.metrics.settings import MetricsSettings
from shared.broker import create_missing_topics
from shared.contracts.base import canonical_json
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.input import Input
from shared.records import Place
from shared.topics import LABELS, PIPELINE_RUNS, POLICIES, PREDICTIONS
from tests.kernel_world import eventually, producing, running
from tests.metrics_world import MINUTE, START, Fact, at, policy, prediction

pytestmark = pytest.mark.needs_end_offsets
NUMBERS = itertools.count()


class Stop(Exception):  # noqa: N818 (it stands for a sender's change of mind)
    """Aborts a transaction."""


class Sender:
    """Sends in transactions to the test's topics; the first partition of each."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str) -> None:
        self._producer, self._prefix = producer, prefix

    async def send(self, *facts: Fact, commit: bool = True) -> None:
        """One transaction."""
        with contextlib.suppress(Stop):
            async with self._producer.transaction():
                for topic, event in facts:
                    await self._producer.send_and_wait(
                        self._prefix + topic.name, canonical_json(event), partition=0
                    )
                if not commit:
                    raise Stop


@pytest.fixture
async def sender(kafka_broker: Broker, topic_prefix: str) -> AsyncIterator[Sender]:
    await create_missing_topics(settings_of(kafka_broker, topic_prefix))
    name = f"{topic_prefix}sender-{next(NUMBERS)}"
    async with producing(kafka_broker.bootstrap_servers, transactional_id=name) as producer:
        yield Sender(producer, topic_prefix)


def settings_of(broker: Broker, prefix: str, **more: Any) -> MetricsSettings:
    return MetricsSettings(
        kafka_bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=prefix,
        session_timeout_seconds=6,
        **more,
    )


async def test_markers_are_told_from_records_that_were_not_taken(
    kafka_broker: Broker, topic_prefix: str, sender: Sender
) -> None:
    await sender.send(prediction("p"), prediction("q"))  # 0, 1, and a marker at 2
    await sender.send(prediction("r"), commit=False)  # 3, and a marker at 4: neither is ever given to a reader
    await sender.send((LABELS, {"tick": at(0)}))  # 0, and a marker at 1
    made, settled = ("predictions", 0), ("labels", 0)
    reader = Input(settings_of(kafka_broker, topic_prefix))
    cases: list[tuple[dict[Place, int], dict[Place, int], set[Place]]] = [
        ({}, {}, set()),
        ({made: 5, settled: 2}, {made: 5, settled: 2}, set()),
        ({made: 2, settled: 1}, {made: 5, settled: 2}, set()),
        ({made: 1, settled: 1}, {made: 5, settled: 2}, {made}),
        ({made: 1}, {made: 1, settled: 1}, {settled}),
        ({}, {made: 5, settled: 2}, {made, settled}),
        ({made: 3}, {made: 4}, set()),
    ]
    for taken, ends, unread in cases:
        for _ in range(2):
            assert await reader.unread(taken, ends) == unread
    await sender.send(prediction("s"))  # 5: what was told of the log up to 5 is no word about it
    assert await reader.unread({made: 2}, {made: 5}) == set()
    assert await reader.unread({made: 2}, {made: 6}) == {made}


async def snapshots(pool: Any) -> list[Snapshot]:
    rows = await pool.fetch("SELECT document FROM published_snapshots ORDER BY sequence")
    return [Snapshot.model_validate_json(canonical_json(row["document"])) for row in rows]


async def test_a_log_that_ends_in_a_marker_is_no_backlog(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, sender: Sender
) -> None:
    """Else staleness would go unnoticed with every sender that uses transactions."""
    await sender.send(prediction("p", 0))
    await sender.send(prediction("q", 0), commit=False)
    sent = datetime.now(UTC)
    settings = settings_of(
        kafka_broker, topic_prefix, postgres_dsn=database_dsn, snapshot_interval=timedelta(seconds=1)
    )
    pool = await connect_pool(database_dsn, role="metrics", application_name="test", max_size=2)
    async with running(settings, service=DEFINITION) as service:
        await service.ready()

        def long_after(found: list[Snapshot]) -> bool:
            return bool(found) and found[-1].as_of > max(sent, found[0].as_of) + timedelta(seconds=4)

        found = await eventually(lambda: snapshots(pool), long_after, "snapshots long after the last record")
    await pool.close()
    assert found[-1].offsets["predictions"]["0"] == 1
    assert [one.catching_up for one in found[-2:]] == [False, False]


async def test_a_boundary_does_not_wait_for_a_marker_among_what_operators_said(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, sender: Sender
) -> None:
    await sender.send(policy(window="1h"))
    await sender.send((POLICIES, {"model": "m", "window": "30d"}), commit=False)
    await sender.send(prediction("p", 0))
    async with producing(kafka_broker.bootstrap_servers) as producer:
        for seconds in (0, MINUTE):
            await ticks(producer, topic_prefix, seconds)
    settings = settings_of(kafka_broker, topic_prefix, postgres_dsn=database_dsn, clock="event")
    pool = await connect_pool(database_dsn, role="metrics", application_name="test", max_size=2)
    async with running(settings, service=DEFINITION):
        (found,) = await eventually(lambda: snapshots(pool), bool, "the boundary is cut")
    await pool.close()
    assert (found.as_of, found.window) == (START + timedelta(seconds=MINUTE), "1h")
    assert found.offsets["policies"] == {"0": 1}


async def ticks(producer: AIOKafkaProducer, prefix: str, seconds: float) -> None:
    for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS):
        for partition in range(topic.partitions):
            await producer.send_and_wait(
                prefix + topic.name, canonical_json({"tick": at(seconds)}), partition=partition
            )
