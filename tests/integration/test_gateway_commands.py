"""Running the policy through the gateway, the broker and the retrain service's handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from deploy.local.broker import Broker
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.broker import create_missing_topics, make_producer
from shared.contracts.models import Policy
from shared.contracts.retraining import JobUpdate, RetrainRequest
from shared.topics import POLICIES, RETRAIN_REQUESTS
from tests.gateway_world import DAY, DAYS, FIRST_DAY, FLIGHTS, NEWBORN, QUIET, STRANGE, World
from trueward.cli.broker import read

POLICY = "/api/v1/mlops/retrain/policy"
REQUESTS = "/api/v1/mlops/retrain/requests"


@pytest.fixture
async def settings(world_dsn: str, kafka_broker: Broker, topic_prefix: str) -> GatewaySettings:
    """Settings of a gateway whose topics exist."""
    found = GatewaySettings(
        postgres_dsn=world_dsn,
        topic_prefix=topic_prefix,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        decision_wait_seconds=20,
    )
    await create_missing_topics(found)
    return found


@asynccontextmanager
async def serving(settings: GatewaySettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that has found its broker."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=60) as client,
    ):
        await until(client, "/health/ready", lambda answer: bool(answer.json()["broker"] == "ok"))
        yield client


@asynccontextmanager
async def deciding(settings: GatewaySettings, dsn: str) -> AsyncIterator[list[RetrainRequest]]:
    """The retrain service's handler at the other end of the topic; yields the requests that it has heard."""
    world, heard = World(dsn, partition=1), list[RetrainRequest]()

    async def decide() -> None:
        async with aclosing(read(settings, (RETRAIN_REQUESTS,), from_beginning=True)) as records:
            async for record in records:
                request = RetrainRequest.model_validate_json(record.value)
                assert record.key == request.model.encode()
                heard.append(request)
                await world.ask(record.value)

    task = asyncio.create_task(decide())
    try:
        yield heard
    finally:
        failed = task.done() and task.exception()
        task.cancel()
        await asyncio.wait([task])
        assert not failed, failed


async def post(client: httpx.AsyncClient, key: str, **body: Any) -> httpx.Response:
    return await client.post(REQUESTS, json=body, headers={"Idempotency-Key": key})


async def test_running_the_policy_acts_once_and_answers_what_was_decided(
    settings: GatewaySettings, world_dsn: str
) -> None:
    async with serving(settings) as client, deciding(settings, world_dsn) as heard:
        answer = await client.get(POLICY, params={"model": FLIGHTS, "dry_run": "false"})
        assert answer.status_code == 200
        first = answer.json()
        # The world's week has made a job already: it covers its causes or is still queued.
        assert (first["should_retrain"], first["action"]) == (True, "already-queued")
        assert first["execution"]["dry_run"] is False
        assert first["execution"]["job_id"] in (await jobs_of(client))
        assert [(request.model, request.dry_run) for request in heard] == [(FLIGHTS, False)]
        again = (await client.get(POLICY, params={"model": FLIGHTS, "dry_run": "false"})).json()
        assert again["execution"]["request_id"] != first["execution"]["request_id"]
        assert again["execution"]["job_id"] == first["execution"]["job_id"]


async def test_a_dry_run_knows_the_job_that_was_just_queued_on_the_same_snapshot(
    settings: GatewaySettings, world_dsn: str
) -> None:
    world = World(world_dsn, partition=2)
    await world.take(POLICIES, Policy(model=FLIGHTS, mode="observe", min_evaluated=5, window="7d"))
    await world.cut(FIRST_DAY + (DAYS + 1) * DAY)
    # The week's job covered its causes for twelve hours; while it is queued it still answers for all of them.
    async with serving(settings) as client, deciding(settings, world_dsn):
        (job_id,) = await jobs_of(client)
        await world.update_job(JobUpdate(job_id=job_id, update="cancelled", at=FIRST_DAY))
        before = (await client.get(POLICY, params={"model": FLIGHTS})).json()
        assert before["fired"]
        assert before["execution"]["covered_by"] == {}
        queued = (await post(client, "now", model=FLIGHTS)).json()
        assert queued["action"] == "queued-retrain"
        after = (await client.get(POLICY, params={"model": FLIGHTS})).json()
        assert after["execution"]["covered_by"] == dict.fromkeys(before["fired"], queued["execution"]["job_id"])
        assert after["snapshot_id"] == before["snapshot_id"]


async def jobs_of(client: httpx.AsyncClient) -> list[str]:
    return [job["job_id"] for job in (await client.get("/api/v1/mlops/retrain/jobs")).json()["jobs"]]


async def test_the_same_key_is_the_same_request_and_has_the_same_answer(
    settings: GatewaySettings, world_dsn: str
) -> None:
    async with serving(settings) as client, deciding(settings, world_dsn) as heard:
        answers = await asyncio.gather(
            *(post(client, "night-run", model=QUIET, requested_by="cron") for _ in range(5))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        later = await post(client, "night-run", model=QUIET)
        assert later.json() == answers[0].json()
        assert later.json()["action"] == "noop"
        assert {request.request_id for request in heard} == {later.json()["execution"]["request_id"]}
        assert heard[0].requested_by == "cron"
        other = await post(client, "night-run", model=STRANGE)
        assert other.json()["execution"]["request_id"] != later.json()["execution"]["request_id"]
        outcome = await client.get(
            f"{REQUESTS}/{later.json()['execution']['request_id']}", params={"model": QUIET}
        )
        assert outcome.json() == later.json()


async def test_a_dry_run_on_request_is_put_on_record_and_queues_nothing(
    settings: GatewaySettings, world_dsn: str
) -> None:
    async with serving(settings) as client, deciding(settings, world_dsn):
        before = await jobs_of(client)
        found = (await post(client, "k", model=FLIGHTS, dry_run=True)).json()
        assert (found["should_retrain"], found["action"]) == (True, "dry-run-noop")
        assert found["execution"]["executed"] is False
        assert await jobs_of(client) == before
        conflict = await post(client, "k", model=FLIGHTS)
        assert conflict.status_code == 409
        assert conflict.json()["type"].endswith(":idempotency-key-reused")


async def test_a_model_without_a_snapshot_is_refused_in_the_services_words(
    settings: GatewaySettings, world_dsn: str
) -> None:
    async with serving(settings) as client, deciding(settings, world_dsn):
        answer = await post(client, "k", model=NEWBORN)
        assert answer.status_code == 409
        assert "has no snapshot" in answer.json()["detail"]
        assert answer.json()["type"].endswith(":request-refused")


async def test_an_unknown_model_is_a_404_and_nothing_is_sent(settings: GatewaySettings, world_dsn: str) -> None:
    async with serving(settings) as client, deciding(settings, world_dsn) as heard:
        assert (await post(client, "k", model="flihgts")).status_code == 404
        assert (await client.get(POLICY, params={"model": "flihgts", "dry_run": "false"})).status_code == 404
        assert (await post(client, "k", model=QUIET)).status_code == 200
        assert [request.model for request in heard] == [QUIET]


async def test_a_decision_that_takes_too_long_is_a_202_with_where_to_look(
    settings: GatewaySettings, world_dsn: str
) -> None:
    """Nobody decides until later."""
    hasty = settings.model_copy(update={"decision_wait_seconds": 0.2})
    async with serving(hasty) as client:
        answer = await post(client, "k", model=STRANGE)
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["status"] == "pending"
        location = answer.headers["location"]
        assert location == answer.json()["location"]
        pending = await client.get(location)
        assert (pending.status_code, pending.json()) == (202, answer.json())
        async with deciding(settings, world_dsn):
            found = await until(client, location, lambda answer: answer.status_code != 202)
        assert found.status_code == 200
        assert found.json()["execution"]["request_id"] == answer.json()["request_id"]
        assert (await post(client, "k", model=STRANGE)).json() == found.json()


async def test_without_a_broker_commands_are_refused_and_reading_goes_on(world_dsn: str) -> None:
    app = create_app(GatewaySettings(postgres_dsn=world_dsn, kafka_bootstrap_servers="127.0.0.1:1"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        answer = await post(client, "k", model=QUIET)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"].endswith(":broker-away")
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["broker"] != "ok"


@pytest.mark.needs_end_offsets
async def test_lag_is_the_brokers_end_against_the_inbox(settings: GatewaySettings, world_dsn: str) -> None:
    producer = make_producer(settings, "test")
    await producer.start()
    try:
        for number in range(5):
            await producer.send_and_wait(settings.topic_prefix + "predictions", b"%d" % number, partition=0)
        await producer.send_and_wait(settings.topic_prefix + "predictions", b"5", partition=1)
    finally:
        await producer.stop()
    connection = await asyncpg.connect(world_dsn)
    try:
        await connection.execute("UPDATE metrics.inbox SET next_offset = 2 WHERE topic = 'predictions'")
    finally:
        await connection.close()
    async with serving(settings) as client:
        status = (await client.get("/api/v1/system/status")).json()
    assert status["dependencies"]["kafka"] == {"ok": True, "detail": "answers"}
    lags = {
        (lag["service"], lag["partition"]): (lag["next_offset"], lag["end_offset"], lag["lag"])
        for lag in status["consumer_lag"]
        if lag["topic"] == "predictions"
    }
    assert lags == {
        ("metrics", 0): (2, 5, 3),
        ("metrics", 1): (None, 1, 1),
        ("metrics", 2): (None, 0, 0),
        ("metrics", 3): (None, 0, 0),
    }


async def until(client: httpx.AsyncClient, path: str, wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask until the answer is as wanted, for twenty seconds at most."""
    async with asyncio.timeout(20):
        while not wanted(answer := await client.get(path)):  # noqa: ASYNC110 (only asking tells)
            await asyncio.sleep(0.05)
    return answer
