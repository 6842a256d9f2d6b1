"""The wall clock: each boundary cut once, figures and offsets that agree, and what is unread said."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError

from services.metrics import clocks, cutting
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.records import Place
from tests.metrics_world import MINUTE, START, START_SECONDS, MetricsWorld, at, label, prediction, run, version
from tests.support import drain_outbox, make_consumer


@pytest.fixture
async def pool(module_database_dsn: str) -> AsyncIterator[Any]:
    """Connections to the module's database, emptied."""
    found = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=12)
    await MetricsWorld(found).forget()
    yield found
    await found.close()


@pytest.fixture
async def world(pool: Any) -> MetricsWorld:
    found = MetricsWorld(pool)
    await found.begin()
    return found


async def published(pool: Any) -> list[Snapshot]:
    return [Snapshot.model_validate_json(message.value) for message in await drain_outbox(pool)]


async def test_of_instances_that_race_one_cuts_each_boundary(pool: Any, world: MetricsWorld) -> None:
    instances = [world, *(MetricsWorld(pool) for _ in range(3))]
    await world.take(prediction("p", 0), prediction("q", 0, model="other"))
    for minute in range(1, 16):
        for instance in instances:
            instance.clock.moment = START + timedelta(minutes=minute)
        made = await asyncio.gather(*(clocks.cut_wall(instance.context) for instance in instances))
        assert sorted(made) == [False, False, False, True]
    snapshots = await published(pool)
    for model in ("m", "other"):
        found = [(one.sequence, one.as_of, one.missed_boundaries) for one in snapshots if one.model == model]
        assert found == [(n, START + timedelta(minutes=n), 0) for n in range(1, 16)]


async def test_an_instance_that_was_overtaken_does_not_count_a_boundary_as_missed(
    pool: Any, world: MetricsWorld
) -> None:
    """It looked when two boundaries were due; before it came to cut, another had cut the first."""
    other = MetricsWorld(pool)
    await world.take(prediction("p", 0))
    await world.one(MINUTE)
    snapshots: list[Snapshot] = []

    async def overtaken(_places: set[Place], _moment: datetime) -> dict[Place, int]:
        snapshots.extend(await other.cut(2 * MINUTE))
        return {}

    world.input.ask = overtaken
    snapshots.extend(await world.cut(3 * MINUTE))
    assert [(one.sequence, one.missed_boundaries) for one in snapshots] == [(2, 0), (3, 0)]


async def test_a_champion_named_between_counting_and_cutting_is_counted_for(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(prediction("p", 0), label("p", 10), label("q", 20))
    await world.take(version("1", 0, trained_through=at(15)))
    adopt = clocks.adopt_champions
    named = iter([version("2", 5, trained_through=at(5))])

    async def overtaken(*given: Any, **more: Any) -> None:
        await adopt(*given, **more)
        for fact in named:
            await world.take(fact)
            return

    monkeypatch.setattr(clocks, "adopt_champions", overtaken)
    snapshot = await world.one(MINUTE)
    assert snapshot.champion is not None
    assert (snapshot.champion.version, snapshot.metrics.new_labels) == ("2", 1)
    assert snapshot.sequence == 1
    assert next(named, None) is None


BETWEEN = ["read_world", "_read_facts", "_read_totals", "_read_offsets"]


@pytest.mark.parametrize("reading", BETWEEN)
async def test_a_batch_that_commits_while_a_boundary_is_cut_does_not_show(
    reading: str, world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(prediction("p", 0), label("p", 10), run(5))
    read: Callable[..., Awaitable[Any]] = getattr(cutting, reading)
    waiting = iter([0])

    async def overtaken(connection: asyncpg.Connection[Any], *more: Any) -> Any:
        in_the_cut = await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
        for _ in waiting if in_the_cut else ():
            await world.take(
                prediction("q", 1, 0.2, data_as_of=at(30)), label("q", 20), label("p", 40, 0), run(50)
            )
            await world.take(version("1", 2), prediction("r", 3, model="other"))
        return await read(connection, *more)

    monkeypatch.setattr(cutting, reading, overtaken)
    snapshot = await world.one(MINUTE)
    assert next(waiting, None) is None, "nothing was committed in between"
    assert snapshot.offsets == {"predictions": {"0": 1}, "labels": {"0": 1}, "pipeline-runs": {"0": 1}}
    metrics = snapshot.metrics
    assert (metrics.predictions, metrics.evaluated_predictions, metrics.accuracy) == (1, 1, 1.0)
    assert (metrics.new_labels, metrics.data_freshness_seconds, metrics.pipeline_freshness_seconds) == (
        1,
        50.0,
        55.0,
    )
    assert snapshot.champion is None
    # And then it does.
    later = {one.model: one for one in await world.cut(2 * MINUTE)}
    assert later.keys() == {"m", "other"}
    assert later["m"].offsets["predictions"] == {"0": 3}
    assert later["m"].metrics.predictions == 2


async def test_figures_and_offsets_agree_while_intake_goes_on(pool: Any, world: MetricsWorld) -> None:
    """Every record is one prediction with its label: what the offsets say was read is what was counted."""
    stop = asyncio.Event()

    async def intake(partition: int) -> int:
        consumer = make_consumer(world.handler, pool, service="metrics")
        number = 0
        while not stop.is_set():
            name = f"p{partition}-{number}"
            facts = [prediction(name, number % 50, 0.25), label(name, 50, number % 2)]
            await consumer.take([world.record(fact, partition) for fact in facts], {})
            number += 1
        return number

    takers = [asyncio.create_task(intake(partition)) for partition in range(3)]
    cutter = MetricsWorld(pool)
    snapshots: list[Snapshot] = []
    minutes = itertools.count(1)
    # Until intake has gone on between enough of the boundaries.
    while len({one.metrics.predictions for one in snapshots}) < 8:
        snapshots += await cutter.cut(next(minutes) * MINUTE)
    stop.set()
    counts = await asyncio.gather(*takers)
    read = [sum(one.offsets.get("predictions", {}).values()) for one in snapshots]
    assert [one.metrics.predictions for one in snapshots] == read
    assert [one.metrics.evaluated_predictions for one in snapshots] == [
        sum(one.offsets.get("labels", {}).values()) for one in snapshots
    ]
    assert read == sorted(read)
    assert sum(counts) == await pool.fetchval("SELECT count(*) FROM prediction")


@pytest.mark.parametrize(
    ("overdue", "catching_up"),
    [
        ({}, False),
        ({("predictions", 0): 2, ("labels", 0): 1}, False),
        # One record of the predictions came more than an interval ago, and was not read.
        ({("predictions", 0): 3}, True),
        # A partition that was never read from, with records that have waited.
        ({("predictions", 3): 1}, True),
        ({("pipeline-runs", 0): 1}, True),
    ],
)
async def test_catching_up_while_anything_unread_has_waited_longer_than_an_interval(
    overdue: dict[Place, int], catching_up: bool, world: MetricsWorld
) -> None:
    await world.take(prediction("p", 0), prediction("q", 0), label("p", 10))
    world.input.partitions = {("predictions", 0), ("predictions", 3), ("labels", 0), ("pipeline-runs", 0)}
    world.input.overdue = overdue
    assert (await world.one(MINUTE)).catching_up is catching_up


async def test_what_is_asked_of_the_broker_is_what_came_an_interval_before_the_boundary(
    world: MetricsWorld,
) -> None:
    asked = []

    async def received_before(places: set[Place], moment: datetime) -> dict[Place, int]:
        asked.append((places, moment))
        return {}

    world.input.partitions = {("predictions", 0), ("policies", 0)}
    world.input.ask = received_before
    await world.take(prediction("p", 0))
    await world.one(5 * MINUTE + 7)
    assert asked == [({("predictions", 0)}, START + timedelta(minutes=4))]


@pytest.mark.parametrize("fault", [KafkaConnectionError(), ConnectionError("away"), TimeoutError()])
@pytest.mark.parametrize(
    ("left", "late", "catching_up"),
    [(0, True, False), (1, False, False), (1, True, True)],
    ids=["all read", "some left, but recent", "some left, and late"],
)
async def test_without_the_broker_the_boundary_is_cut_and_the_newest_batch_tells(
    fault: Exception, left: int, late: bool, catching_up: bool, world: MetricsWorld
) -> None:
    """Silence must be noticed, whatever is away."""
    world.input.overdue = fault
    received_at = START + timedelta(minutes=10 if late else 59)
    record = world.record(prediction("p", 0), received_at=received_at)
    await world.take_records([record], {("predictions", 0): 1 + left})
    assert (await world.one(60 * MINUTE)).catching_up is catching_up


async def test_a_broker_that_hangs_does_not_hold_a_boundary_up(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_places: set[Place], _moment: datetime) -> dict[Place, int]:
        await asyncio.Event().wait()
        raise AssertionError("never")

    monkeypatch.setattr(clocks, "BROKER_SECONDS", 0.05)
    world.input.ask = hang
    await world.take(prediction("p", 0))
    async with asyncio.timeout(5):
        assert (await world.one(MINUTE)).sequence == 1


async def test_a_clock_that_is_set_back_cuts_nothing_twice(world: MetricsWorld) -> None:
    await world.take(prediction("p", 0))
    assert (await world.one(5 * MINUTE)).sequence == 1
    for minutes in (5, 4, 1):
        assert await world.cut(minutes * MINUTE) == []
    assert (await world.one(6 * MINUTE)).sequence == 2


async def test_what_the_broker_said_before_a_boundary_is_of_that_boundary_alone(world: MetricsWorld) -> None:
    """Where a boundary was let pass meanwhile, the broker is asked anew."""
    await world.take(prediction("p", 0))
    world.input.partitions = {("predictions", 0)}
    early = clocks.Asked(START_SECONDS + MINUTE, {})
    world.input.overdue = {("predictions", 0): 2}
    for minutes, catching_up in ((1, False), (2, True)):
        world.clock.moment = START + timedelta(minutes=minutes)
        assert await clocks.cut_wall(world.context, early)
        (snapshot,) = await world.published()
        assert snapshot.catching_up is catching_up


async def test_the_broker_is_asked_before_the_boundary_and_not_at_it(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as a boundary has come it is cut: no answer of the broker is waited for."""
    happened: list[tuple[str, float]] = []

    async def sleep(seconds: float) -> None:
        world.clock.moment += timedelta(seconds=seconds)

    async def received_before(_places: set[Place], moment: datetime) -> dict[Place, int]:
        happened.append(("asked", (world.clock.moment - START).total_seconds()))
        assert moment == START + timedelta(minutes=len(happened) // 2)
        return {}

    async def cut(context: Any, asked: clocks.Asked) -> bool:
        happened.append(("cut", (context.clock.now() - START).total_seconds()))
        assert asked == clocks.Asked(START_SECONDS + (len(happened) // 2) * MINUTE, {})
        if len(happened) == 4:
            raise asyncio.CancelledError
        return True

    monkeypatch.setattr(clocks, "_sleep", sleep)
    monkeypatch.setattr(clocks, "cut_wall", cut)
    world.input.ask = received_before
    world.clock.moment = START + timedelta(seconds=7)
    with pytest.raises(asyncio.CancelledError):
        await clocks._run_wall(world.context)
    assert happened == [("asked", 58.0), ("cut", 60.0), ("asked", 118.0), ("cut", 120.0)]


async def test_a_cut_that_fails_leaves_nothing_and_is_made_good(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.take(prediction("p", 0))
    save = cutting._save
    failing = iter([ConnectionError("gone after saving")])

    async def failing_save(connection: Any, made: Any) -> None:
        await save(connection, made)
        for error in failing:
            raise error

    monkeypatch.setattr(cutting, "_save", failing_save)
    with pytest.raises(ConnectionError):
        await world.cut(MINUTE)
    assert await world.pool.fetchval("SELECT count(*) FROM snapshot") == 0
    assert (await world.one(MINUTE)).sequence == 1
