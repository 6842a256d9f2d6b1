"""Publishing over HTTP: through the real gateway to the real broker, and on to the metrics service."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.local.broker import Broker
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.broker import create_missing_topics
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic
from tests.integration.conftest import NOBODY, Start, free_port

PATH = "/api/v1/ingest"
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}
SOME_TIME = "2026-05-01T00:00:00Z"


def label(number: int, **fields: Any) -> dict[str, Any]:
    return {"entity_id": f"e-{number}", "outcome": number % 2, "observed_at": SOME_TIME, **fields}


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> GatewaySettings:
    """Settings of a gateway whose topics exist."""
    found = GatewaySettings(
        postgres_dsn=database_dsn,
        topic_prefix=topic_prefix,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        ingest_body_bytes=4_000_000,
    )
    await create_missing_topics(found)
    return found


@asynccontextmanager
async def serving(settings: GatewaySettings, *, connected: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway, one that has found its broker."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=60) as client,
    ):
        async with asyncio.timeout(30):
            while connected and not await is_connected(client):  # noqa: ASYNC110 (only asking tells)
                await asyncio.sleep(0.02)
        yield client


async def is_connected(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/health/ready")).json()["broker"] == "ok")


async def published(settings: GatewaySettings, topic: Topic, count: int) -> list[tuple[bytes, bytes]]:
    """The first ``count`` records of a topic, as (key, value) in no particular order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(
            [TopicPartition(settings.topic_prefix + topic.name, number) for number in range(topic.partitions)]
        )
        await consumer.seek_to_beginning()
        found: list[tuple[bytes, bytes]] = []
        async with asyncio.timeout(30):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found.extend((record.key, record.value) for record in records)
        return found
    finally:
        await consumer.stop()


async def test_what_is_accepted_is_in_the_topic_and_what_is_refused_is_named(settings: GatewaySettings) -> None:
    async with serving(settings) as client:
        answer = await client.post(f"{PATH}/labels", json=[label(1), label(2, outcome=True), label(3, ooops=1)])
        assert answer.status_code == 202
        said = answer.json()
        assert (said["accepted"], said["unknown_fields"]) == (2, {"ooops": 1})
        (refused,) = said["refused"]
        assert (refused["index"], refused["reason"]) == (1, "invalid")
        assert refused["field"].startswith("outcome")
        lines = f"{json.dumps(label(4))}\n\nno JSON\n"
        said = (await client.post(f"{PATH}/labels", content=lines, headers=LINES)).json()
        assert (said["accepted"], [refused["index"] for refused in said["refused"]]) == (1, [1])
    found = await published(settings, LABELS, 3)
    assert sorted(key for key, _ in found) == [b"e-1", b"e-3", b"e-4"]
    assert {json.loads(value)["entity_id"]: json.loads(value) for _, value in found} == {
        f"e-{number}": label(number, **extra) for number, extra in ((1, {}), (3, {"ooops": 1}), (4, {}))
    }


async def test_every_input_topic_has_its_place_and_its_key(settings: GatewaySettings) -> None:
    prediction = {"prediction_id": "p", "model": "m", "model_version": "1", "predicted_at": SOME_TIME}
    lineage = {"eventType": "COMPLETE", "eventTime": SOME_TIME, "run": {"runId": "r"}}
    cases: list[tuple[Topic, dict[str, Any], bytes]] = [
        (PREDICTIONS, {**prediction, "probability": 0.5, "entity_id": "entity"}, b"entity"),
        (PIPELINE_RUNS, {**lineage, "job": {"namespace": "n", "name": "j"}}, b"n/j"),
        (
            MODEL_VERSIONS,
            {"model": "m", "version": "1", "registered_at": SOME_TIME, "stage": "champion"},
            b"m",
        ),
    ]
    async with serving(settings) as client:
        for topic, event, key in cases:
            answer = await client.post(f"{PATH}/{topic.name}", json=event)
            assert (answer.status_code, answer.json()["accepted"]) == (202, 1), answer.text
            assert [found for found, _ in await published(settings, topic, 1)] == [key]


@pytest.mark.parametrize(
    ("content", "headers", "status", "kind"),
    [
        (b"{}", {}, 415, "unsupported-media-type"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
        (gzip.compress(b"{}"), {**LINES, "Content-Encoding": "gzip"}, 415, "unsupported-encoding"),
        (b"{", JSON, 422, "invalid-request"),
        (b"", JSON, 422, "invalid-request"),
        (b"{}\n" * 10_001, LINES, 422, "invalid-request"),
        (b" " * 4_000_001, LINES, 413, "body-too-large"),
        (b"{}", {**LINES, "Sec-Fetch-Site": "cross-site"}, 403, "cross-site-request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_body_of_events_is_a_problem(
    database_dsn: str, content: bytes, headers: dict[str, str], status: int, kind: str
) -> None:
    lonely = GatewaySettings(
        postgres_dsn=database_dsn, kafka_bootstrap_servers=NOBODY, ingest_body_bytes=4_000_000
    )
    async with serving(lonely, connected=False) as client:
        answer = await client.post(f"{PATH}/labels", content=content, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert answer.json()["type"].endswith(f":{kind}")
        unknown = await client.post(f"{PATH}/labels?modle=m", json=label(1))
        assert unknown.status_code == 422


async def test_too_much_at_once_is_sent_away_until_there_is_room(settings: GatewaySettings) -> None:
    tight = settings.model_copy(update={"ingest_requests_in_flight": 1})
    async with serving(tight) as client:
        many = [label(number) for number in range(5_000)]
        answers = await asyncio.gather(*(client.post(f"{PATH}/labels", json=many) for _ in range(4)))
        taken = [answer for answer in answers if answer.status_code == 202]
        away = [answer for answer in answers if answer.status_code == 429]
        assert taken
        assert len(taken) + len(away) == 4
        assert away, "four at once found room for one at a time"
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in away)
        assert (await client.post(f"{PATH}/labels", json=label(1))).status_code == 202
    found = await published(settings, LABELS, 5_000 * len(taken) + 1)
    assert len(found) == 5_000 * len(taken) + 1


async def test_without_a_broker_nothing_is_taken(settings: GatewaySettings) -> None:
    lonely = settings.model_copy(update={"kafka_bootstrap_servers": NOBODY})
    async with serving(lonely, connected=False) as client:
        answer = await client.post(f"{PATH}/labels", json=label(1))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "Nothing was sent" in answer.json()["detail"]
        # What is refused anyway needs no broker.
        assert (await client.post(f"{PATH}/labels", json={})).json()["accepted"] == 0


async def test_a_topic_that_nobody_made_is_no_silent_loss(settings: GatewaySettings, topic_prefix: str) -> None:
    strange = settings.model_copy(update={"topic_prefix": f"{topic_prefix}!", "ingest_wait_seconds": 1.0})
    async with serving(strange) as client:
        answer = await client.post(f"{PATH}/labels", json=label(1))
        assert answer.status_code == 503
        assert answer.json()["type"].endswith(":broker-away")


@pytest.mark.slow
def test_the_same_events_sent_twice_change_nothing(
    start: Start, database_dsn: str, kafka_broker: Broker, topic_prefix: str
) -> None:
    environment = {
        **kafka_broker.service_environment(),
        "TRUEWARD_TOPIC_PREFIX": topic_prefix,
        "TRUEWARD_POSTGRES_DSN": database_dsn,
        "TRUEWARD_SNAPSHOT_INTERVAL": "1s",
    }
    url = f"http://127.0.0.1:{free_port()}"
    metrics = start("service", "metrics", "--http-port", str(free_port()), **environment)
    gateway = start("service", "gateway", "--http-port", url.rpartition(":")[2], **environment)
    gateway.wait_until_answers(url)
    began = datetime.now(UTC) - timedelta(minutes=10)
    moment = began.isoformat().replace("+00:00", "Z")
    predictions = [
        {
            "prediction_id": f"p-{number}",
            "model": "m",
            "model_version": "1",
            "predicted_at": moment,
            "probability": 0.9 if number % 2 else 0.2,
            "entity_id": f"e-{number}",
        }
        for number in range(400)
    ]
    labels = [label(number // 2 * 2 + 1 if number % 4 else number, observed_at=moment) for number in range(400)]
    labels = [{**one, "entity_id": f"e-{number}"} for number, one in enumerate(labels)]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        until(lambda: client.get("/health/ready").json().get("broker") == "ok", metrics.said)
        send(client, predictions, labels)
        until(lambda: figures(client).get("evaluated_predictions") == 400, metrics.said)
        once = figures(client)
        assert once["accuracy"] is not None
        sent_at = datetime.now(UTC)
        send(client, predictions, labels)
        # One more that is new, sent behind the repeats to every partition's end, shows that they were read.
        extra = [{**predictions[0], "prediction_id": f"x-{number}", "model": "n"} for number in range(64)]
        extra = [{**one, "entity_id": f"x-{number}"} for number, one in enumerate(extra)]
        send(client, extra, [label(number, entity_id=f"x-{number}", observed_at=moment) for number in range(64)])
        until(lambda: figures(client, "n").get("evaluated_predictions") == 64, metrics.said)
        until(lambda: snapshot_of(client) > sent_at, metrics.said)
        twice = figures(client)
    del once["data_freshness_seconds"], twice["data_freshness_seconds"]
    assert twice == once


def send(client: httpx.Client, predictions: list[dict[str, Any]], labels: list[dict[str, Any]]) -> None:
    for name, events in (("predictions", predictions), ("labels", labels)):
        answer = client.post(f"{PATH}/{name}", json=events)
        assert answer.json() == {"accepted": len(events), "refused": [], "unknown_fields": {}}, answer.text


def figures(client: httpx.Client, model: str = "m") -> dict[str, Any]:
    answer = client.get("/api/v1/mlops/monitoring", params={"model": model})
    found: dict[str, Any] = answer.json()["metrics"] if answer.is_success else {}
    return found


def snapshot_of(client: httpx.Client) -> datetime:
    found = client.get("/api/v1/mlops/monitoring", params={"model": "m"}).json()["as_of"]
    return datetime.fromisoformat(found)


def until(condition: Callable[[], bool], said: Callable[[], str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
