"""The real handlers on a real PostgreSQL: every batch commits, whatever is in it, and the good records count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

import httpx
import pytest

from services.alerting.handlers import alerting_handler
from services.alerting.store import PostgresStore as AlertingStore
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from services.metrics.domain.identity import key_of
from services.retrain.handlers import retrain_handler
from services.retrain.store import PostgresStore as RetrainStore
from shared import consumer
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.effects import Handler
from shared.topics import DEAD_LETTERS, Service, Topic, read_by
from tests.contracts.examples import example
from tests.fuzz.records import Sent, check_letters, hostile
from tests.fuzz.targets import RECEIVED_AT
from tests.fuzz.turns import turns
from tests.metrics_world import MetricsWorld, label, prediction
from tests.support import Emitted, Feed, drain_outbox, make_consumer

FEW = 40
BATCH = 16
NOWHERE = "127.0.0.1:1"
NOT_SO: Mapping[Service, Mapping[str, Sequence[str]]] = {
    "metrics": {"predictions": ("unsupported", "conflict")},
    "alerting": {"snapshots": ("conflict",)},
    "retrain": {
        "snapshots": ("conflict",),
        "alerts": ("invalid",),
        "retrain-requests": ("invalid",),
        "retrain-job-updates": ("unknown_job", "illegal_transition"),
    },
}
"""Why a service may refuse what its contract admits: it does not agree with what is known."""


@pytest.fixture(autouse=True)
def _nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that makes its batch fail would be tried again for ever: here it fails the test at once."""

    async def once(_what: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
        return await attempt()

    monkeypatch.setattr(consumer, "until_done", once)


@pytest.fixture
async def pool_of(database_dsn: str) -> AsyncIterator[Callable[[Service], Awaitable[Any]]]:
    """Connections in a service's role."""
    pools = []

    async def opened(service: Service) -> Any:
        pools.append(await connect_pool(database_dsn, role=service, application_name="test", max_size=2))
        return pools[-1]

    yield opened
    await asyncio.gather(*(pool.close() for pool in pools))


async def attack(
    service: Service, handler: Handler, pool: Any, *, feed: Feed, random: Random, good: Sequence[Any]
) -> list[Emitted]:
    """One batch of hostile records with good ones in between; returns what was published beside dead letters."""
    topics = read_by(service)
    sent = [hostile(random.choice(topics), feed, random) for _ in range(BATCH)]
    # Offsets ascend within a partition, so that good records have one of their own.
    sent += [Sent(feed.record(topic, value, partition=7, received_at=RECEIVED_AT), None) for topic, value in good]
    random.shuffle(sent)
    # A flood of dead letters is what this is: it must not stop the intake.
    taking = make_consumer(handler, pool, service=service, now=RECEIVED_AT, breaker_min_refused=0)
    await taking.take([one.record for one in sent], {})
    emitted = await drain_outbox(pool)
    letters = [one for one in emitted if one.topic == DEAD_LETTERS.name]
    check_letters(sent, letters, NOT_SO[service])
    places = {(one.record.topic, one.record.partition) for one in sent}
    next_offsets = {
        (row["topic"], row["partition"]): row["next_offset"]
        for row in await pool.fetch("SELECT topic, partition, next_offset FROM inbox")
    }
    for place in places:
        last = max(one.record.offset for one in sent if (one.record.topic, one.record.partition) == place)
        assert next_offsets[place] == last + 1
    return [one for one in emitted if one.topic != DEAD_LETTERS.name]


async def test_metrics_takes_what_is_good_and_what_it_kept_can_be_cut_and_read(
    pool_of: Callable[[Service], Awaitable[Any]], database_dsn: str
) -> None:
    pool = await pool_of("metrics")
    world = MetricsWorld(pool)
    await world.begin()
    for name, random in turns("metrics", FEW):
        good = [prediction(name, 0, model="good"), label(name, 60)]
        await attack("metrics", world.handler, pool, feed=world.feed, random=random, good=good)
        settled = "SELECT count(*) FROM prediction JOIN label USING (entity_key) WHERE prediction_key = $1"
        assert await pool.fetchval(settled, key_of(name)) == 1
    snapshots = await world.cut(365 * 86_400)
    assert "good" in {snapshot.model for snapshot in snapshots}
    alerting, retrain = await pool_of("alerting"), await pool_of("retrain")
    for service, handler, where in (
        ("alerting", alerting_handler(AlertingStore()), alerting),
        ("retrain", retrain_handler(RetrainStore()), retrain),
    ):
        feed = Feed(RECEIVED_AT)
        records = [feed.record(read_by("alerting")[0], snapshot) for snapshot in snapshots]
        await make_consumer(handler, where, service=service, now=RECEIVED_AT).take(records, {})  # type: ignore[arg-type]
        assert not [one for one in await drain_outbox(where) if one.topic == DEAD_LETTERS.name]
    await check_readable(database_dsn, [snapshot.model for snapshot in snapshots])


async def check_readable(dsn: str, models: Sequence[str]) -> None:
    """Fail unless the gateway answers about every model."""
    app = create_app(GatewaySettings(postgres_dsn=dsn, kafka_bootstrap_servers=NOWHERE))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        for path in ("models", "overview", "system/status", "mlops/retrain/jobs"):
            assert (await client.get(f"/api/v1/{path}")).status_code == 200, path
        for model in models:
            for path in (
                *("monitoring", "monitoring/trend", "monitoring/series", "monitoring/segments"),
                *("alerts/transitions", "retrain/decisions", "retrain/policy", "policies"),
            ):
                answer = await client.get(f"/api/v1/mlops/{path}", params={"model": model})
                assert answer.status_code == 200, (path, model, answer.text)


async def test_alerting_judges_what_is_good(
    pool_of: Callable[[Service], Awaitable[Any]], database_dsn: str
) -> None:
    pool = await pool_of("alerting")
    feed, handler = Feed(RECEIVED_AT), alerting_handler(AlertingStore())
    for name, random in turns("alerting", FEW):
        good = [(read_by("alerting")[0], snapshot_of(name))]
        await attack("alerting", handler, pool, feed=feed, random=random, good=good)
        assert await pool.fetchval("SELECT snapshot_sequence FROM models WHERE model = $1", name) == 1
    await check_readable(database_dsn, [])


async def test_retrain_decides_on_what_is_good(
    pool_of: Callable[[Service], Awaitable[Any]], database_dsn: str
) -> None:
    pool = await pool_of("retrain")
    feed, handler = Feed(RECEIVED_AT), retrain_handler(RetrainStore())
    snapshots, requests = read_by("retrain")[0], topic_of("retrain-requests")
    for name, random in turns("retrain", FEW):
        request = {"request_id": name, "model": name, "requested_at": "2026-01-31T12:00:00Z"}
        for good in ([(snapshots, snapshot_of(name))], [(requests, request)]):
            await attack("retrain", handler, pool, feed=feed, random=random, good=good)
        assert await pool.fetchval("SELECT count(*) FROM decisions WHERE model = $1", name) == 2
    await check_readable(database_dsn, [])


def topic_of(name: str) -> Topic:
    return next(topic for topic in read_by("retrain") if topic.name == name)


def snapshot_of(model: str) -> Snapshot:
    """The first snapshot of a model."""
    document = {**example("snapshot.v1", "first-nothing-known").canonical, "model": model, "sequence": 1}
    return Snapshot.model_validate_json(json.dumps(document))
