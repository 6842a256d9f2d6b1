"""Answers that are kept: never older than what anybody has seen, never instead of a database that is away.

Every gateway here but the last test's runs without a broker: what is kept does not depend on one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psycopg
import pytest

from deploy.local.broker import Broker
from deploy.local.endpoints import FILE_NAME
from services.gateway.app import create_app
from services.gateway.kept.answering import FROM_MEMORY, MADE
from services.gateway.settings import GatewaySettings
from shared.contracts.base import canonical_json
from shared.topics import LABELS, PREDICTIONS
from tests.gateway_world import DAY, DAYS, FIRST_DAY, FLIGHTS, World, label, prediction
from tests.integration.conftest import NOBODY, Start, free_port

MONITORING = "/api/v1/mlops/monitoring"
TREND = f"{MONITORING}/trend"
PATIENCE_SECONDS = 150


@asynccontextmanager
async def gateway(dsn: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(GatewaySettings(postgres_dsn=dsn, kafka_bootstrap_servers=NOBODY, **settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        yield client


def counted() -> tuple[float, float]:
    """How many answers came from memory, and how many were made."""
    return FROM_MEMORY._value.get(), MADE._value.get()


async def ask(client: httpx.AsyncClient, path: str = MONITORING, **asked: Any) -> Any:
    answer = await client.get(path, params={"model": FLIGHTS, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def another_day(world: World, day: int) -> None:
    begin = FIRST_DAY + day * DAY
    await world.take(PREDICTIONS, prediction(begin, 1))
    await world.take(LABELS, label(begin, 1, good=True))
    await world.cut(begin + DAY)


@pytest.mark.parametrize("path", [MONITORING, TREND])
async def test_a_kept_answer_is_the_made_one_to_the_byte_and_counted_alike(
    reading_own: httpx.AsyncClient, path: str
) -> None:
    before = counted()
    made, kept = [await reading_own.get(path, params={"model": FLIGHTS}) for _ in range(2)]
    assert counted() == (before[0] + 1, before[1] + 1)
    assert (kept.status_code, kept.content, kept.headers) == (200, made.content, made.headers)
    assert kept.headers["cache-control"] == "no-store"
    assert kept.headers["x-content-type-options"] == "nosniff"
    metrics = (await reading_own.get("/metrics")).text
    series = f'trueward_http_requests_total{{method="GET",route="{path}",status="200"}}'
    assert series in metrics


async def test_a_new_snapshot_and_its_judgement_are_seen_at_once(
    reading_own: httpx.AsyncClient, world_dsn: str
) -> None:
    world = World(world_dsn, partition=1)
    for day in range(DAYS, DAYS + 3):
        for _ in range(2):
            found = await ask(reading_own)
            assert (found["snapshot_sequence"], found["judged"]["snapshot_sequence"]) == (day, day)
            assert (await ask(reading_own, TREND, days=90, limit=2))["points"][0]["snapshot_sequence"] == day
        await another_day(world, day)


@pytest.mark.parametrize(
    ("statement", "field", "then"),
    [
        # As after a restored backup: another content under a number that was given before.
        (
            "UPDATE metrics.latest_figures SET figures = '[]' WHERE model = 'flights'",
            lambda found: found["metrics"]["evaluated_predictions"],
            0,
        ),
        (
            "UPDATE alerting.models SET state = 'watch' WHERE model = 'flights'",
            lambda found: found["escalation"]["state"],
            "watch",
        ),
        (
            "UPDATE alerting.models SET standing = '{}' WHERE model = 'flights'",
            lambda found: found["escalation"]["total_alerts"],
            0,
        ),
    ],
)
async def test_a_change_that_leaves_the_numbers_as_they_are_is_seen(
    reading_own: httpx.AsyncClient, world_dsn: str, statement: str, field: Callable[[Any], Any], then: Any
) -> None:
    for _ in range(2):
        before = await ask(reading_own)
    assert field(before) != then
    with psycopg.connect(world_dsn, autocommit=True) as administrator:
        administrator.execute(statement.encode())
    after = await ask(reading_own)
    assert field(after) == then
    assert after["snapshot_sequence"] == before["snapshot_sequence"]


async def test_a_database_that_is_away_is_said_and_nothing_kept_is_given_instead(
    postgres_server: str, world_dsn: str
) -> None:
    name = world_dsn.rpartition("/")[2].partition("?")[0]

    def rename(old: str, new: str) -> None:
        with psycopg.connect(postgres_server, autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,)
            )
            administrator.execute(f'ALTER DATABASE "{old}" RENAME TO "{new}"'.encode())

    async with gateway(world_dsn) as client:
        kept = await ask(client)
        rename(name, f"{name}_away")
        for _ in range(2):
            answer = await client.get(MONITORING, params={"model": FLIGHTS})
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["type"] == "urn:trueward:problem:database-away"
        rename(f"{name}_away", name)
        before = counted()
        assert await ask(client) == kept
        assert counted() == (before[0] + 1, before[1]), "it is as new as the database, which says so again"


async def test_who_may_keep_nothing_answers_all_the_same(world_dsn: str) -> None:
    async with gateway(world_dsn, kept_answers_bytes=0) as client:
        before = counted()
        assert await ask(client) == await ask(client)
        assert counted() == (before[0], before[1] + 2)


async def test_what_one_gateway_says_is_processed_another_answers_with(world_dsn: str) -> None:
    """Two gateways under questions, while snapshots are cut and judged one after the other."""
    world = World(world_dsn, partition=1)
    over = asyncio.Event()
    first_seen: set[int] = set()

    async def watch(says: httpx.AsyncClient, answers: httpx.AsyncClient) -> None:
        while not over.is_set():
            listed = (await says.get("/api/v1/models")).json()["models"]
            (processed,) = (one["snapshot_sequence"] for one in listed if one["model"] == FLIGHTS)
            found, trend = await asyncio.gather(ask(answers), ask(answers, TREND, days=90))
            assert found["snapshot_sequence"] >= processed["metrics"]
            assert found["judged"]["snapshot_sequence"] >= processed["alerting"]
            assert trend["points"][0]["snapshot_sequence"] >= processed["metrics"]
            first_seen.add(found["snapshot_sequence"])

    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(gateway(world_dsn)) for _ in range(2)]
        before = counted()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(watch(one, other))
                group.create_task(watch(other, one))
            for day in range(DAYS, DAYS + 6):
                await another_day(world, day)
            over.set()
    assert len(first_seen) > 2
    assert counted()[0] > before[0]


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_with_real_services_no_answer_is_behind_what_either_gateway_says(
    start: Start, kafka_broker: Broker, database_dsn: str, topic_prefix: str, tmp_path: Path
) -> None:
    arguments = ["--data-dir", str(tmp_path), "--http-port", "0", "--snapshot-interval", "1s"]
    arguments += ["--postgres", database_dsn, "--kafka", kafka_broker.bootstrap_servers]
    up = start("up", *arguments, "--topic-prefix", topic_prefix)
    port = free_port()
    second = start(
        *("service", "gateway", "--http-port", str(port)),
        **kafka_broker.service_environment(),
        TRUEWARD_POSTGRES_DSN=database_dsn,
        TRUEWARD_TOPIC_PREFIX=topic_prefix,
    )
    await until(lambda: asyncio.to_thread((tmp_path / FILE_NAME).exists))
    urls = [json.loads((tmp_path / FILE_NAME).read_text())["http"], f"http://127.0.0.1:{port}"]
    second.wait_until_answers(urls[1])
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False, timeout=30))
            for url in urls
        ]
        now = datetime.now(UTC) - timedelta(minutes=5)
        answer = await gateways[0].post(
            "/api/v1/ingest/predictions",
            content=canonical_json([prediction(now, number).known() for number in range(3)]),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 202, answer.text

        async def known() -> bool:
            listed = (await gateways[0].get("/api/v1/models")).json()["models"]
            return bool(listed) and None not in listed[0]["snapshot_sequence"].values()

        await until(known)
        seen = await asyncio.gather(
            watched_until(gateways[0], gateways[1], 8), watched_until(gateways[1], gateways[0], 8)
        )
        for client in gateways:
            assert "trueward_kept_answers_total" in (await client.get("/metrics")).text
    assert all(len(sequences) >= 3 for sequences in seen)
    assert [up.stop(), second.stop()] == [0, 0]


async def watched_until(says: httpx.AsyncClient, answers: httpx.AsyncClient, snapshots: int) -> set[int]:
    """Hold answers against what the other gateway says until so many more snapshots were judged."""
    seen: set[int] = set()
    last = None
    while last is None or last < min(seen) + snapshots:
        (model,) = (await says.get("/api/v1/models")).json()["models"]
        processed = model["snapshot_sequence"]
        found = await ask(answers)
        assert found["snapshot_sequence"] >= processed["metrics"]
        assert found["judged"]["snapshot_sequence"] >= processed["alerting"]
        last = found["judged"]["snapshot_sequence"]
        seen.add(last)
    return seen


async def until(wanted: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await wanted():  # noqa: ASYNC110 (only asking tells)
            await asyncio.sleep(0.1)


async def test_the_revision_of_a_row_changes_with_whatever_is_written_to_it(world_dsn: str) -> None:
    """The views that all of this rests on."""
    connection = await asyncpg.connect(world_dsn)
    try:
        for view, table in (
            ("metrics.published_revisions", "metrics.latest_figures"),
            ("alerting.published_revisions", "alerting.models"),
        ):
            read = f"SELECT revision FROM {view} WHERE model = $1"
            revisions = {await connection.fetchval(read, FLIGHTS)}
            for _ in range(3):
                await connection.execute(f"UPDATE {table} SET as_of = as_of WHERE model = $1", FLIGHTS)
                revisions.add(await connection.fetchval(read, FLIGHTS))
            await connection.execute(f"VACUUM FREEZE {table}")
            revisions.add(await connection.fetchval(read, FLIGHTS))
            assert len(revisions) == 4
    finally:
        await connection.close()
