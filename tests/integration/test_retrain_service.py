"""The retrain service as it is deployed: a process between real topics and a real database."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from deploy.local.broker import Broker
from shared.contracts.base import Contract
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.retraining import Decision, Job
from tests.integration.conftest import RunningCommand, Start, free_port
from tests.unit.retrain.builders import BAD_ACCURACY, MODEL, make_request, make_snapshot, make_update
from tests.unit.retrain.harness import TOPICS

PATIENCE_SECONDS = 120


@asynccontextmanager
async def producing(broker: Broker) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=False)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


Enough = Callable[[Sequence[ConsumerRecord[bytes, bytes]]], bool]


async def read(broker: Broker, topic: str, enough: Enough) -> list[ConsumerRecord[bytes, bytes]]:
    """Read a topic from its beginning until there is enough."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    records: list[ConsumerRecord[bytes, bytes]] = []
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not enough(records):
                for found in (await consumer.getmany(timeout_ms=200)).values():
                    records += found
    finally:
        await consumer.stop()
    return records


async def statuses(broker: Broker, prefix: str, last: str) -> list[Job]:
    """The changes of the only job up to a status, repeats dropped as a reader drops them."""

    def jobs(records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Job]:
        told: list[Job] = []
        for record in records:
            job = Job.model_validate_json(record.value or b"")
            assert record.key == MODEL.encode()
            assert dict(record.headers)["ce_id"] == job.event_id().encode()
            if not told or job.job_sequence > told[-1].job_sequence:
                told.append(job)
        return told

    records = await read(
        broker, f"{prefix}retrain-jobs", lambda found: any(job.status == last for job in jobs(found))
    )
    return jobs(records)


class Deployed:
    """The service and its surroundings."""

    def __init__(self, broker: Broker, prefix: str, dsn: str, start: Start) -> None:
        self.broker, self.prefix, self._start = broker, prefix, start
        self._environment = {
            **broker.service_environment(),
            "TRUEWARD_POSTGRES_DSN": dsn,
            "TRUEWARD_TOPIC_PREFIX": prefix,
            "TRUEWARD_SESSION_TIMEOUT_SECONDS": "6",
            "TRUEWARD_LEASE_CHECK_INTERVAL": "1s",
        }

    async def started(self, *, lease_grace: str) -> RunningCommand:
        port = free_port()
        service = self._start(
            "service",
            "retrain",
            "--http-port",
            str(port),
            **self._environment,
            TRUEWARD_LEASE_GRACE=lease_grace,
        )
        service.wait_until_answers(f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE_SECONDS):
            ready = f"http://127.0.0.1:{port}/health/ready"
            while (await client.get(ready)).status_code != 200:  # noqa: ASYNC110 (readiness must be asked for)
                await asyncio.sleep(0.1)
        return service

    async def publish(self, producer: AIOKafkaProducer, *events: Contract) -> None:
        for event in events:
            key = getattr(event, "job_id", MODEL).encode()
            await producer.send_and_wait(f"{self.prefix}{TOPICS[type(event)].name}", event.to_json(), key=key)

    async def decisions(self, count: int) -> list[Decision]:
        topic = f"{self.prefix}retrain-decisions"
        records = await read(self.broker, topic, lambda found: len(by_id(found)) >= count)
        return [Decision.model_validate_json(first.value or b"") for first, *_ in by_id(records).values()]


def by_id(records: Sequence[ConsumerRecord[bytes, bytes]]) -> dict[bytes, list[ConsumerRecord[bytes, bytes]]]:
    """Records by CloudEvents id: what is published again has the same id, and the same bytes."""
    found: dict[bytes, list[ConsumerRecord[bytes, bytes]]] = {}
    for record in records:
        same = found.setdefault(dict(record.headers)["ce_id"], [])
        same.append(record)
        assert same[0].value == record.value
    return found


async def test_decisions_and_a_job_across_stops_and_kills(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, start: Start
) -> None:
    deployed = Deployed(kafka_broker, topic_prefix, database_dsn, start)
    snapshot = make_snapshot(1, **BAD_ACCURACY, policy={"lease_seconds": 2})
    async with producing(kafka_broker) as producer:
        service = await deployed.started(lease_grace="0s")
        await deployed.publish(producer, snapshot)
        await producer.send_and_wait(f"{topic_prefix}retrain-requests", b"garbage", key=b"flights")
        (job,) = await statuses(kafka_broker, topic_prefix, "queued")
        service.stop(signal.SIGKILL)

        await deployed.publish(producer, snapshot, make_request(), make_update(job, "started", trainer="t-1"))
        service = await deployed.started(lease_grace="0s")
        told = await statuses(kafka_broker, topic_prefix, "expired")
        by_snapshot, by_request = await deployed.decisions(2)
        assert service.stop() == 0
    assert [each.status for each in told] == ["queued", "running", "expired"]
    assert [each.job_sequence for each in told] == [1, 2, 3]
    assert (by_snapshot.action, by_snapshot.job_id) == ("queued-retrain", job.job_id)
    assert (by_request.action, by_request.job_id) == ("already-queued", job.job_id)
    letters = await read(kafka_broker, f"{topic_prefix}dead-letters", lambda found: len(found) >= 1)
    ((letter, *_),) = by_id(letters).values()
    assert DeadLetter.model_validate_json(letter.value or b"").original_value() == b"garbage"


async def test_a_lease_that_ended_while_nobody_listened_is_not_over_until_the_unread_is_read(
    kafka_broker: Broker, topic_prefix: str, database_dsn: str, start: Start
) -> None:
    deployed = Deployed(kafka_broker, topic_prefix, database_dsn, start)
    async with producing(kafka_broker) as producer:
        service = await deployed.started(lease_grace="10m")
        await deployed.publish(producer, make_snapshot(1, **BAD_ACCURACY, policy={"lease_seconds": 1}))
        (job,) = await statuses(kafka_broker, topic_prefix, "queued")
        await deployed.publish(producer, make_update(job, "started"))
        running = (await statuses(kafka_broker, topic_prefix, "running"))[-1]
        service.stop(signal.SIGKILL)
        await until_past(database_dsn, running.lease_expires_at)

        await deployed.publish(producer, make_update(job, "completed", model_version="v2"))
        service = await deployed.started(lease_grace="60s")
        told = await statuses(kafka_broker, topic_prefix, "completed")
        assert service.stop() == 0
    assert [each.status for each in told] == ["queued", "running", "completed"]


async def until_past(dsn: str, moment: datetime | None) -> None:
    """Wait until a lease that the database knows is over."""
    assert moment is not None
    connection: Any = await asyncpg.connect(dsn)
    try:
        overdue = (
            "SELECT count(*) FROM retrain.jobs WHERE status = 'running' AND lease_expires_at < clock_timestamp()"
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await connection.fetchval(overdue):  # noqa: ASYNC110 (time itself is waited for)
                await asyncio.sleep(0.1)
    finally:
        await connection.close()
    assert datetime.now(UTC) > moment
