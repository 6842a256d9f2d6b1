"""What retrain does beside its input, and what it publishes for reading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.retrain.app import DEFINITION
from services.retrain.settings import RetrainSettings
from services.retrain.upkeep import expire_overdue, remove_some, settings_of
from shared.database import connect_pool
from shared.errors import UsageError
from shared.input import Input
from shared.listener import Listener
from shared.records import Place
from shared.service import Context
from shared.settings import Settings
from shared.topics import Topic
from tests.support import FixedClock
from tests.unit.retrain.builders import (
    BAD_ACCURACY,
    BAD_BRIER,
    EPOCH,
    HOUR,
    MODEL,
    make_alert,
    make_request,
    make_snapshot,
    make_update,
)
from tests.unit.retrain.harness import PostgresRetrain

LEASE = timedelta(seconds=900)


class Broker(Input):
    """The broker as the upkeep asks for it: there, or away."""

    def __init__(self, away: bool = False) -> None:
        super().__init__("test.")
        self.away = away

    async def places(self, topics: tuple[Topic, ...]) -> set[Place]:
        return {(topic.name, 0) for topic in topics}

    async def log_ends(self, places: set[Place]) -> dict[Place, int]:
        if self.away:
            raise ConnectionError("the broker is away")
        return dict.fromkeys(places, 0)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Any]:
    """Connections in the service's own role."""
    pool = await connect_pool(database_dsn, role="retrain", application_name="test", max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def gateway(database_dsn: str) -> AsyncIterator[Any]:
    """Connections of the role that reads the published views."""
    pool = await connect_pool(database_dsn, role="gateway", application_name="test-gateway", max_size=2)
    yield pool
    await pool.close()


@pytest.fixture
def retrain(pool: Any) -> PostgresRetrain:
    return PostgresRetrain(pool)


def context_at(pool: Any, now: datetime, *, away: bool = False, settings: Settings | None = None) -> Context:
    return Context(
        service="retrain",
        settings=settings or RetrainSettings(),
        pool=pool,
        clock=FixedClock(now),
        listener=Listener("", role="retrain", application_name="test"),
        input=Broker(away),
    )


async def run_a_job(retrain: PostgresRetrain, model: str = MODEL) -> None:
    (job,) = (await retrain.take(make_snapshot(1, model=model, **BAD_ACCURACY))).jobs
    await retrain.take(make_update(job, "started"))


async def test_every_lease_that_is_over_is_ended(pool: Any, retrain: PostgresRetrain) -> None:
    for model in ("a", "b", "c"):
        await run_a_job(retrain, model)
    renewed = (await retrain.kept_jobs())[0]
    await retrain.take(make_update(renewed, "heartbeat"), now=EPOCH + timedelta(seconds=1))

    early = await expire_overdue(context_at(pool, EPOCH + LEASE - timedelta(microseconds=1)), retrain.store)
    looked_at = await expire_overdue(context_at(pool, EPOCH + LEASE), retrain.store)
    again = await expire_overdue(context_at(pool, EPOCH + LEASE), retrain.store)

    assert (early, looked_at, again) == (0, 2, 0)
    told = await retrain.told()
    assert [job.status for job in told.jobs] == ["expired", "expired"]
    assert sorted(job.status for job in await retrain.kept_jobs()) == ["expired", "expired", "running"]


async def test_nothing_expires_while_heartbeats_cannot_be_heard(pool: Any, retrain: PostgresRetrain) -> None:
    await run_a_job(retrain)

    with pytest.raises(ConnectionError):
        await expire_overdue(context_at(pool, EPOCH + 10 * LEASE, away=True), retrain.store)

    assert [job.status for job in await retrain.kept_jobs()] == ["running"]


async def test_old_decisions_that_made_no_job_are_removed(pool: Any, retrain: PostgresRetrain) -> None:
    day = timedelta(days=1)
    observe = {"mode": "observe"}
    await retrain.take(make_snapshot(1, at=EPOCH, **BAD_ACCURACY), make_request())
    await retrain.take(make_snapshot(2, at=EPOCH + day), make_snapshot(3, at=EPOCH + 2 * day, policy=observe))
    await retrain.take(make_snapshot(4, at=EPOCH + 92 * day), make_snapshot(1, model="other", at=EPOCH))

    removed = await remove_some(context_at(pool, EPOCH), retrain.store)

    kept = await pool.fetch(
        "SELECT model, asked_by, action, as_of FROM decisions ORDER BY model, decision_sequence"
    )
    assert removed == 1
    assert [tuple(row) for row in kept] == [
        (MODEL, "snapshot", "queued-retrain", EPOCH),
        (MODEL, "request", "already-queued", EPOCH),
        (MODEL, "snapshot", "dry-run-noop", EPOCH + 2 * day),
        (MODEL, "snapshot", "noop", EPOCH + 92 * day),
        ("other", "snapshot", "noop", EPOCH),
    ]


async def test_refused_requests_are_forgotten_after_a_week(
    pool: Any, gateway: Any, retrain: PostgresRetrain
) -> None:
    await retrain.take(make_request("old"))
    await retrain.take(make_request("new"), now=EPOCH + timedelta(days=1))
    (old, new) = await gateway.fetch("SELECT * FROM retrain.published_refused_requests ORDER BY refused_at")
    assert (old["request_id"], new["request_id"], old["model"]) == ("old", "new", MODEL)
    assert "has no snapshot" in old["detail"]

    await remove_some(context_at(pool, EPOCH + timedelta(days=7, seconds=1)), retrain.store)

    left = await gateway.fetch("SELECT request_id FROM retrain.published_refused_requests")
    assert [row["request_id"] for row in left] == ["new"]


async def test_views_say_what_was_published(gateway: Any, retrain: PostgresRetrain) -> None:
    told = await retrain.take(make_alert(), make_snapshot(1, **BAD_ACCURACY), make_snapshot(2))
    told.extend(await retrain.take(make_request()))
    await retrain.take(make_alert(1, model="without snapshots"))

    decisions = await gateway.fetch("SELECT * FROM retrain.published_decisions ORDER BY decision_sequence")
    assert [row["document"] for row in decisions] == [decision.known() for decision in told.decisions]
    assert [
        (row["decision_id"], row["model"], row["asked_by"], row["request_id"], row["as_of"], row["action"])
        for row in decisions
    ] == [
        (each.decision_id, each.model, each.asked_by, each.request_id, each.evidence.as_of, each.action)
        for each in told.decisions
    ]
    (latest,) = await gateway.fetch("SELECT * FROM retrain.published_latest_decisions")
    assert dict(latest) == dict(decisions[1])
    assert [tuple(row) for row in await gateway.fetch("SELECT * FROM retrain.published_models")] == [(MODEL, 2)]
    (job,) = await gateway.fetch("SELECT * FROM retrain.published_jobs")
    (published,) = told.jobs
    assert job["document"] == published.known()
    assert (job["job_id"], job["model"], job["status"]) == (published.job_id, MODEL, "queued")
    assert (job["created_at"], job["updated_at"], job["as_of"]) == (EPOCH, EPOCH, published.as_of)


@pytest.mark.parametrize("champion", ["v1", None])
async def test_the_published_coverage_is_what_a_dry_run_would_say_now(
    gateway: Any, retrain: PostgresRetrain, champion: str | None
) -> None:
    """The view and the rule of the domain agree after every step of a job's life."""
    asked = 0

    async def agree() -> dict[str, str]:
        nonlocal asked
        asked += 1
        (decision,) = (await retrain.take(make_request(f"dry-{asked}", dry_run=True))).decisions
        (row,) = await gateway.fetch("SELECT * FROM retrain.published_coverage")
        assert (row["model"], row["covered_by"]) == (MODEL, dict(decision.covered_by))
        return row["covered_by"]

    observe = {"policy": {"mode": "observe"}, "champion": champion}
    await retrain.take(make_snapshot(1, **observe, **BAD_ACCURACY))
    assert await agree() == {}
    (first,) = (await retrain.take(make_request())).jobs
    assert await agree() == {"accuracy_breach": first.job_id}
    await retrain.take(make_snapshot(2, **observe, **BAD_ACCURACY, **BAD_BRIER))
    assert await agree() == {"accuracy_breach": first.job_id, "brier_breach": first.job_id}
    await retrain.take(make_update(first, "cancelled"))
    assert await agree() == {"accuracy_breach": first.job_id}
    (second,) = (await retrain.take(make_request("again"))).jobs
    assert await agree() == {"accuracy_breach": first.job_id, "brier_breach": second.job_id}
    await retrain.take(make_update(second, "failed"))
    await retrain.take(make_snapshot(3, at=first.as_of + 12 * HOUR, **observe, **BAD_ACCURACY, **BAD_BRIER))
    assert await agree() == {"brier_breach": second.job_id}
    await retrain.take(make_snapshot(4, at=EPOCH + 20 * HOUR, **observe))
    assert await agree() == {}


async def test_the_gateway_reads_views_alone(gateway: Any) -> None:
    for table in ("models", "decisions", "jobs", "causes", "refused_requests"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await gateway.fetch(f"SELECT * FROM retrain.{table}")


async def test_the_service_cannot_change_what_it_has_decided(pool: Any, retrain: PostgresRetrain) -> None:
    await retrain.take(make_snapshot(1, **BAD_ACCURACY))
    for statement in ("UPDATE decisions SET action = 'noop'", "DELETE FROM causes", "DELETE FROM jobs"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)


def test_the_service_wants_its_own_settings() -> None:
    assert DEFINITION.name == "retrain"
    context = context_at(None, EPOCH, settings=Settings())
    with pytest.raises(UsageError, match="RetrainSettings"):
        settings_of(context)
