"""What the database itself guarantees of retraining, with the halves of two transactions interleaved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from services.retrain.books import Ledger, Wanted
from services.retrain.handlers import retrain_handler
from services.retrain.store import QUERIES, PostgresStore
from shared.contracts.base import Contract
from shared.database import Connection, connect_pool
from shared.effects import Effects
from shared.records import Record
from tests.support import drain_outbox, make_consumer
from tests.unit.retrain.builders import (
    BAD_ACCURACY,
    BAD_BRIER,
    EPOCH,
    MODEL,
    make_request,
    make_snapshot,
    make_update,
)
from tests.unit.retrain.harness import TOPICS, PostgresRetrain, Told, actions

TWELVE_HOURS = timedelta(hours=12)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Any]:
    """Connections in the service's own role."""
    pool = await connect_pool(database_dsn, role="retrain", application_name="test", max_size=6)
    yield pool
    await pool.close()


@pytest.fixture
async def watcher(database_dsn: str) -> AsyncIterator[Any]:
    """Sees who waits for whom."""
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def retrain(pool: Any) -> PostgresRetrain:
    return PostgresRetrain(pool)


async def until_one_waits(watcher: Any) -> None:
    """Return once a connection to this database waits for another's lock."""
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
    """
    async with asyncio.timeout(5):
        while not await watcher.fetchval(waiting):  # noqa: ASYNC110 (PostgreSQL has no event for it)
            await asyncio.sleep(0.01)


async def insert_job(
    connection: Connection,
    number: int,
    *,
    as_of: datetime = EPOCH,
    status: str = "queued",
    trigger: str = "accuracy_breach",
    champion: str = "v1",
    model: str = MODEL,
) -> None:
    """Write a job and its cause past every rule of the service: only the tables' own rules are left."""
    decision_id, job_id = f"decision-{number}", f"job-{number}"
    await connection.execute(QUERIES.add_models, [model])
    await connection.execute(
        QUERIES.append_decisions,
        [decision_id], [model], [number], ["snapshot"], [None], [as_of], ["queued-retrain"], ["{}"],
    )  # fmt: skip
    await connection.execute(
        QUERIES.append_jobs,
        EPOCH, [job_id], [model], [decision_id], [1], [status], [as_of], [EPOCH], [None], [False], ["{}"],
    )  # fmt: skip
    await connection.execute(QUERIES.append_causes, [job_id], [model], [champion], [trigger], [as_of])


@pytest.mark.parametrize("first_commits", [True, False])
@pytest.mark.parametrize(
    ("first_status", "refusal"),
    [("queued", asyncpg.UniqueViolationError), ("failed", asyncpg.ExclusionViolationError)],
)
async def test_of_two_jobs_made_at_once_only_one_can_be(
    pool: Any, watcher: Any, first_status: str, refusal: type[Exception], first_commits: bool
) -> None:
    """The second insert waits for the first transaction: made, it is refused; rolled back, it goes on.

    A first job that has ended in its own transaction leaves the model free and its cause covered.
    """
    await PostgresRetrain(pool).take(make_snapshot(1))
    async with pool.acquire() as one, pool.acquire() as two:
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        await insert_job(one, 11, status=first_status)
        inserting = asyncio.create_task(insert_job(two, 12))
        await until_one_waits(watcher)
        if first_commits:
            await first.commit()
            with pytest.raises(refusal):
                await inserting
            await second.rollback()
        else:
            await first.rollback()
            await inserting
            await second.commit()
    assert [row["job_id"] for row in await pool.fetch("SELECT job_id FROM jobs")] == [
        "job-11" if first_commits else "job-12"
    ]
    assert await pool.fetchval("SELECT count(*) FROM causes") == 1


@pytest.mark.parametrize(
    ("later", "allowed"),
    [
        (timedelta(0), False),
        (TWELVE_HOURS - MICROSECOND, False),
        (TWELVE_HOURS, True),
        (TWELVE_HOURS + MICROSECOND, True),
        (-TWELVE_HOURS + MICROSECOND, False),
        (-TWELVE_HOURS, True),
    ],
)
async def test_the_database_covers_a_cause_for_twelve_hours(pool: Any, later: timedelta, allowed: bool) -> None:
    async with pool.acquire() as connection:
        await insert_job(connection, 1, status="failed")
        if allowed:
            await insert_job(connection, 2, as_of=EPOCH + later, status="failed")
        else:
            with pytest.raises(asyncpg.ExclusionViolationError, match="causes_once_in_12_hours"):
                await insert_job(connection, 2, as_of=EPOCH + later, status="failed")


@pytest.mark.parametrize("other", [{"trigger": "new_labels"}, {"champion": ""}, {"model": "other"}])
async def test_another_cause_is_not_covered(pool: Any, other: dict[str, Any]) -> None:
    async with pool.acquire() as connection:
        await insert_job(connection, 1, status="failed")
        await insert_job(connection, 2, status="failed", **other)


async def test_the_database_allows_one_active_job_a_model(pool: Any) -> None:
    async with pool.acquire() as connection:
        await insert_job(connection, 1, status="queued")
        with pytest.raises(asyncpg.UniqueViolationError, match="jobs_one_active_a_model"):
            await insert_job(connection, 2, status="queued", trigger="new_labels")
        await insert_job(connection, 3, status="queued", model="other")


class GatedStore(PostgresStore):
    """Stops after loading until the gate opens, so that a test decides who goes first."""

    def __init__(self) -> None:
        self.loaded = asyncio.Event()
        self.gate = asyncio.Event()
        self.fail_first_save = False
        self.loads = 0

    async def load(self, connection: Connection, wanted: Wanted) -> Ledger:
        ledger = await super().load(connection, wanted)
        self.loads += 1
        self.loaded.set()
        await self.gate.wait()
        return ledger

    async def save(self, connection: Connection, ledger: Ledger, now: datetime) -> None:
        await super().save(connection, ledger, now)
        if self.fail_first_save and self.loads == 1:
            raise ConnectionResetError("the first try is lost")


class UnlockedStore(GatedStore):
    """As it would be if the models' locks were forgotten: then the tables' own rules must hold alone."""

    async def _lock(self, connection: Connection, wanted: Wanted) -> Any:
        class WithoutLock:
            """The connection, its row locks left out."""

            async def execute(self, query: str, *arguments: Any) -> Any:
                return await connection.execute(query, *arguments)

            async def fetch(self, query: str, *arguments: Any) -> Any:
                return await connection.fetch(query.replace("FOR NO KEY UPDATE", ""), *arguments)

        unlocked: Any = WithoutLock()
        return await super()._lock(unlocked, wanted)


async def take(pool: Any, store: PostgresStore, partition: int, *events: Contract) -> None:
    """An instance takes events in from a partition of its own."""
    records = [
        Record(TOPICS[type(event)].name, partition, offset, EPOCH, None, event.to_json())
        for offset, event in enumerate(events)
    ]
    await make_consumer(retrain_handler(store), pool, service="retrain").take(records, {})


async def told_by(pool: Any) -> Told:
    told = Told()
    for emitted in await drain_outbox(pool):
        told.add(emitted.topic, emitted.value)
    return told


@pytest.mark.parametrize("first_try_fails", [False, True])
async def test_two_instances_decide_about_a_model_one_after_the_other(
    pool: Any, watcher: Any, retrain: PostgresRetrain, first_try_fails: bool
) -> None:
    """A snapshot and a request meet in two partitions; the second to lock the model sees the first one's job."""
    await retrain.take(make_snapshot(1, policy={"mode": "observe"}, **BAD_ACCURACY))
    first, second = GatedStore(), GatedStore()
    first.fail_first_save = first_try_fails
    second.gate.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(take(pool, first, 1, make_snapshot(2, **BAD_ACCURACY)))
        await first.loaded.wait()
        group.create_task(take(pool, second, 2, make_request()))
        await until_one_waits(watcher)
        assert not second.loaded.is_set()
        first.gate.set()

    told = await told_by(pool)
    assert sorted(actions(told.decisions)) == ["already-queued", "queued-retrain"]
    assert sorted(decision.decision_sequence for decision in told.decisions) == [2, 3]
    (job,) = told.jobs
    assert {decision.job_id for decision in told.decisions} == {job.job_id}
    assert await retrain.kept_jobs() == [job]


async def test_without_the_lock_the_tables_still_allow_one_job(pool: Any, retrain: PostgresRetrain) -> None:
    """Both have read that there is no job; the database refuses the second, which is tried again and sees it."""
    await retrain.take(make_snapshot(1, policy={"mode": "observe"}, **BAD_ACCURACY, **BAD_BRIER))
    first, second = UnlockedStore(), UnlockedStore()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(take(pool, first, 1, make_snapshot(2, **BAD_ACCURACY)))
        group.create_task(take(pool, second, 2, make_request()))
        await asyncio.gather(first.loaded.wait(), second.loaded.wait())
        first.gate.set()
        second.gate.set()

    told = await told_by(pool)
    assert sorted(actions(told.decisions)) == ["already-queued", "queued-retrain"]
    assert first.loads + second.loads == 3
    assert sorted(decision.decision_sequence for decision in told.decisions) == [2, 3]
    (job,) = told.jobs
    assert {decision.job_id for decision in told.decisions} == {job.job_id}


async def test_a_lease_ends_once_however_many_instances_look(pool: Any, retrain: PostgresRetrain) -> None:
    (job,) = (await retrain.take(make_snapshot(1, **BAD_ACCURACY))).jobs
    await retrain.take(make_update(job, "started"))
    over = EPOCH + timedelta(seconds=900)

    looks = await asyncio.gather(*(PostgresRetrain(pool).expire(job, now=over) for _ in range(4)))

    expired = [each.status for told in looks for each in told.jobs]
    assert expired == ["expired"]
    assert [kept.job_sequence for kept in await retrain.kept_jobs()] == [3]


async def test_a_heartbeat_that_comes_first_saves_the_job(
    pool: Any, watcher: Any, retrain: PostgresRetrain
) -> None:
    """The lease was over when it was looked for; under the lock it has been renewed."""
    (job,) = (await retrain.take(make_snapshot(1, **BAD_ACCURACY))).jobs
    await retrain.take(make_update(job, "started"))
    over = EPOCH + timedelta(seconds=900)
    heartbeat = GatedStore()
    records = [Record("retrain-job-updates", 1, 0, EPOCH, None, make_update(job, "heartbeat").to_json())]
    consumer = make_consumer(retrain_handler(heartbeat), pool, service="retrain", now=over)
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.take(records, {}))
        await heartbeat.loaded.wait()
        expiring = group.create_task(PostgresRetrain(pool).expire(job, now=over))
        await until_one_waits(watcher)
        heartbeat.gate.set()

    assert expiring.result().jobs == []
    assert [kept.status for kept in await retrain.kept_jobs()] == ["running"]


async def statements_for(pool: Any, retrain: PostgresRetrain, models: int, snapshots: int) -> int:
    """How many statements a batch takes in which every model gets snapshots, a job, and a request."""
    names = [f"{models}-{number}" for number in range(models)]
    events: list[Contract] = [
        make_snapshot(sequence, model=name, **BAD_ACCURACY)
        for sequence in range(1, 1 + snapshots)
        for name in names
    ]
    events += [make_request(model=name) for name in names]
    records = [retrain.feed.record(TOPICS[type(event)], event) for event in events]
    statements: list[str] = []
    async with pool.acquire() as connection, connection.transaction():
        with connection.query_logger(lambda query: statements.append(query.query)):
            await retrain_handler(PostgresStore())(records, Effects("retrain", connection, EPOCH))
    assert await pool.fetchval("SELECT count(*) FROM jobs WHERE model = ANY ($1)", names) == models
    decided = await pool.fetchval("SELECT count(*) FROM decisions WHERE model = ANY ($1)", names)
    assert decided == models * (snapshots + 1)
    return len(statements)


async def test_a_batch_costs_the_same_statements_whatever_its_size(pool: Any, retrain: PostgresRetrain) -> None:
    # The driver's own questions about types come with the first use of them.
    await statements_for(pool, retrain, models=2, snapshots=2)

    small = await statements_for(pool, retrain, models=1, snapshots=1)
    large = await statements_for(pool, retrain, models=40, snapshots=5)

    assert small == large
    assert small <= 12
