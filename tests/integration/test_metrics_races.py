"""Transactions that cannot see each other meet in one entity, one model, one id: the sums are right even so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
import pytest

from services.metrics import handlers
from services.metrics.domain.horizons import DEFAULT_HORIZONS
from services.metrics.domain.identity import id_of
from services.metrics.store import MODEL_SHARDS
from services.metrics.world import adopt_champions
from shared.contracts.dead_letters import DeadLetter
from shared.database import connect_pool
from shared.effects import Effects
from shared.records import Record
from tests.metrics_state import assert_figures, assert_state
from tests.metrics_world import DAY, HOUR, Fact, MetricsWorld, label, policy, prediction, version
from tests.metrics_world import at as moment
from tests.support import RECEIVED_AT, make_consumer

WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
)
End = Literal["commit", "rollback"]


@pytest.fixture
async def world(module_database_dsn: str) -> AsyncIterator[MetricsWorld]:
    """An instance on the module's database, emptied."""
    pool = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=6)
    found = MetricsWorld(pool)
    await found.forget()
    await found.begin()
    yield found
    await pool.close()


@asynccontextmanager
async def open_batch(world: MetricsWorld, facts: Sequence[Fact], end: End) -> AsyncIterator[None]:
    """A batch whose transaction has done its work and stays open for the length of the ``with``."""
    records = [world.record(fact, 1) for fact in facts]
    async with world.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        effects = Effects("metrics", connection, RECEIVED_AT)
        await world.handler(records, effects)
        yield
        await effects.flush()
        await (transaction.commit() if end == "commit" else transaction.rollback())


async def until_waiting(world: MetricsWorld, work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Start work on another connection; returns once it waits for a lock, fails if it ends without."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(5):
        while not await world.pool.fetchval(WAITING):
            assert not task.done(), task.result() if not task.cancelled() else "cancelled"
            await asyncio.sleep(0.005)
    return task


MADE = prediction("p", 50, 0.321, entity_id="e")
SETTLED = label("e", 5_000, 0)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["prediction", "label"])
async def test_a_prediction_and_its_label_in_two_open_transactions_are_evaluated_once(
    first: str, end: End, world: MetricsWorld
) -> None:
    one, two = (MADE, SETTLED) if first == "prediction" else (SETTLED, MADE)
    async with open_batch(world, [one], end):
        waiting = await until_waiting(world, world.take(two))
    assert await asyncio.wait_for(waiting, timeout=5) == []
    if end == "rollback":
        await assert_state(world, [two])
        await world.take(one, partition=2)
    await assert_figures(world, await assert_state(world, [one, two]), DAY)


async def test_a_correction_that_meets_another_takes_out_what_the_other_put_in(world: MetricsWorld) -> None:
    await world.take(MADE, label("e", 100, 1))
    async with open_batch(world, [label("e", 200, 0)], "commit"):
        waiting = await until_waiting(world, world.take(label("e", 100 + DAY, 1)))
    await waiting
    await assert_state(world, [MADE, label("e", 100 + DAY, 1)])


async def test_an_older_label_that_waited_for_a_newer_one_is_stale(world: MetricsWorld) -> None:
    await world.take(MADE)
    async with open_batch(world, [label("e", 200, 0)], "commit"):
        waiting = await until_waiting(world, world.take(label("e", 100, 1)))
    await waiting
    await assert_state(world, [MADE, label("e", 200, 0)])


async def test_two_predictions_of_a_labelled_entity_count_one_new_label(world: MetricsWorld) -> None:
    """Each alone would be the model's first meeting with the entity."""
    await world.take(SETTLED)
    other = prediction("q", 60, 0.5, entity_id="e", version="2")
    async with open_batch(world, [MADE], "commit"):
        waiting = await until_waiting(world, world.take(other))
    await waiting
    await assert_figures(world, await assert_state(world, [MADE, other, SETTLED]), DAY)


async def test_one_id_under_two_entities_is_taken_once_and_is_a_conflict_once(world: MetricsWorld) -> None:
    """Their entities may be guarded by two locks, their models too: then the primary key decides."""
    refused = []
    for number in range(20):
        one = prediction(f"id-{number}", entity_id=f"one-{number}", model=f"one-{number}")
        two = prediction(f"id-{number}", entity_id=f"two-{number}", model=f"two-{number}")
        async with open_batch(world, [one], "commit"):
            waiting = await until_waiting(world, world.take(two))
        refused += [DeadLetter.model_validate_json(message.value) for message in await waiting]
    assert [(letter.reason, letter.field) for letter in refused] == [("conflict", "prediction_id")] * 20
    assert await world.pool.fetchval("SELECT count(*) FROM prediction") == 20


async def test_segments_declared_while_predictions_come(world: MetricsWorld) -> None:
    """Whichever goes first, the other sees it: no prediction is counted by the old segments, none twice."""
    declared = policy(segments={"region": ["eu"]})
    made = [
        prediction(f"p{n}", n, segment={"region": region}) for n, region in enumerate(["eu", "us", "eu", "us"])
    ]
    await world.take(made[0])
    async with open_batch(world, [made[1]], "commit"):
        waiting = await until_waiting(world, world.take(declared))
    await waiting
    again = policy(segments={"region": ["us"]})
    async with open_batch(world, [again], "commit"):
        waiting = await until_waiting(world, world.take(made[2]))
    await waiting
    await assert_state(world, [*made[:3], declared, again])


async def test_labels_that_come_while_new_labels_are_counted_afresh(world: MetricsWorld) -> None:
    """The count waits for a batch in flight, and a batch for the count: none is lost, none counted twice."""
    facts: list[Fact] = [prediction(f"p{n}", 0) for n in range(6)]
    facts += [label("p0", 10), label("p1", 30), version("1", 0, trained_through=moment(20))]
    await world.take(*facts)
    late = label("p2", 40)
    async with open_batch(world, [late], "commit"):
        cutting = await until_waiting(world, world.one(HOUR))
    facts.append(late)
    assert (await cutting).metrics.new_labels == 2
    promoted = version("2", 50, trained_through=moment(35))
    await world.take(promoted, label("p3", 60))
    facts += [promoted, label("p3", 60)]
    async with world.context.transaction() as effects:
        as_of = int(RECEIVED_AT.timestamp()) * 1_000_000
        horizon = DEFAULT_HORIZONS.label
        await adopt_champions(effects.connection, as_of, bucket_seconds=60, label_horizon=horizon)
        waiting = await until_waiting(world, world.take(label("p4", 70), label("p0", 80)))
    await waiting
    facts += [label("p4", 70), label("p0", 80)]
    await assert_figures(world, await assert_state(world, facts), DAY)


async def test_a_batch_that_brings_a_policy_too_waits_for_nobody_in_a_circle(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, high = sorted(("one", "two"), key=lambda name: id_of(name) % MODEL_SHARDS)
    one = [prediction("p1", model=high), policy(model=low, segments={"region": ["eu"]})]
    two = [prediction("p2", model=low), prediction("p3", model=high)]
    known = [prediction("p4", model=low), prediction("p5", model=high)]
    await world.take(*known)
    take_policies = handlers._take_policies
    others: list[asyncio.Task[Any]] = []

    async def when_the_other_waits(effects: Effects, policies: Any, width: int) -> None:
        if policies:
            others.append(await until_waiting(world, plainly(world, two)))
        await take_policies(effects, policies, width)

    monkeypatch.setattr(handlers, "_take_policies", when_the_other_waits)
    await plainly(world, one)
    await asyncio.gather(*others)
    assert len(others) == 1
    await assert_state(world, [*known, *one, *two])


async def plainly(world: MetricsWorld, facts: Sequence[Fact]) -> None:
    """One transaction, not tried again."""
    records = [world.record(fact) for fact in facts]
    async with world.pool.acquire() as connection, connection.transaction():
        effects = Effects("metrics", connection, RECEIVED_AT)
        await world.handler(records, effects)
        await effects.flush()


@pytest.mark.parametrize("seed", range(2))
async def test_many_instances_over_the_same_entities_and_models_never_deadlock(
    seed: int, world: MetricsWorld
) -> None:
    chance = random.Random(seed)
    facts: list[Fact] = []
    for number in range(400):
        model, entity = f"m{chance.randrange(8)}", f"e{chance.randrange(60)}"
        more = {"segment": {"region": f"r{chance.randrange(40)}"}, "entity_id": entity}
        facts.append(prediction(f"p{number}", number, 0.25, model=model, version=f"{chance.randrange(5)}", **more))
        facts.append(label(entity, chance.randrange(10_000), chance.choice([0, 1, None])))
    chance.shuffle(facts)
    declared = [
        policy(model=f"m{number % 8}", segments={"region": [f"r{chance.randrange(40)}"]}) for number in range(24)
    ]
    failures: list[str] = []

    async def counting(records: Sequence[Record], effects: Effects) -> None:
        try:
            await world.handler(records, effects)
        except asyncpg.PostgresError as error:
            failures.append(type(error).__name__)
            raise

    async def instance(partition: int) -> None:
        consumer = make_consumer(counting, world.pool, service="metrics")
        mine = [world.record(fact, partition) for fact in facts[partition::4]]
        for start in range(0, len(mine), 25):
            batch = mine[start : start + 25]
            if partition == 0:  # the one that reads policies, beside all else
                batch += [world.record(declared[start // 25 * 3 + number]) for number in range(3)]
            await consumer.take(batch, {})

    await asyncio.gather(*map(instance, range(4)))
    assert failures == []
    await assert_state(world, [*facts, *declared])
