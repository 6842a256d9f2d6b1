"""Services start in any order, before what they need: each waits, and says for what."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shared.database import migrate
from tests import parts
from tests.kernel_world import eventually, proxied
from tests.releases import ROOT, ServiceOf

START_SECONDS = 120
CONSUMERS = ("metrics", "alerting", "retrain")


@pytest.fixture
def empty_dsn(postgres_server: str) -> Iterator[str]:
    """A database that nobody has migrated."""
    name = f"trueward_bare_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield f"{postgres_server.partition('?')[0].rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def services(tmp_path: Path) -> Iterator[dict[str, ServiceOf]]:
    """All four, not started; none outlives the test."""
    found = {name: ServiceOf(ROOT, name, {}, tmp_path / f"{name}.log") for name in (*CONSUMERS, "gateway")}
    yield found
    for service in found.values():
        service.kill()


async def all_say(services: dict[str, ServiceOf], status: int, words: dict[str, str]) -> None:
    for name, said in words.items():
        await eventually(
            services[name].readiness,
            lambda seen, said=said: seen[0] == status and said in seen[1],
            f"{name} says {said!r}",
            seconds=START_SECONDS,
        )


@pytest.mark.slow
async def test_each_waits_for_postgresql_then_for_migrations_then_for_kafka(
    services: dict[str, ServiceOf],
    empty_dsn: str,
    restartable_broker: parts.RestartableBroker,
    topic_prefix: str,
) -> None:
    """Everything is away at first, and comes one after the other; nobody is started again."""
    async with proxied(empty_dsn) as (proxy, dsn):
        await proxy.stop()
        for service in services.values():
            service.environment |= {
                **restartable_broker.broker.service_environment(),
                "TRUEWARD_POSTGRES_DSN": dsn,
                "TRUEWARD_TOPIC_PREFIX": topic_prefix,
                "TRUEWARD_METRICS_URL": f"http://127.0.0.1:{services['metrics'].port}",
            }
            service.start()
        waiting = dict.fromkeys(CONSUMERS, "waiting for PostgreSQL")
        await all_say(services, 503, {**waiting, "gateway": "PostgreSQL"})
        await proxy.start()
        waiting = dict.fromkeys(CONSUMERS, "waiting for the database to be migrated: run `trueward migrate`")
        await all_say(services, 503, {**waiting, "gateway": "migrate"})
        migrate(empty_dsn)
        await all_say(services, 503, dict.fromkeys(CONSUMERS, "waiting for Kafka"))
        await restartable_broker.start()
        await all_say(services, 200, dict.fromkeys(services, "ready"))


async def test_a_database_of_the_version_before_is_waited_for_by_name(
    services: dict[str, ServiceOf], database_dsn: str, topic_prefix: str
) -> None:
    """New code that is started before its migrations waits for them, whatever it has served before."""
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM _yoyo_migration WHERE migration_id = '0005_kernel_recovery'")
    metrics = services["metrics"]
    metrics.environment |= {"TRUEWARD_POSTGRES_DSN": database_dsn, "TRUEWARD_TOPIC_PREFIX": topic_prefix}
    metrics.start()
    await all_say(services, 503, {"metrics": "waiting for the database to be migrated"})
    await eventually(_words(metrics), lambda seen: "0005_kernel_recovery" in seen, "its log names what is missing")


def _words(service: ServiceOf):  # type: ignore[no-untyped-def]  # noqa: ANN202 (an awaitable of what it logged)
    async def look() -> str:
        return service.words()

    return look
