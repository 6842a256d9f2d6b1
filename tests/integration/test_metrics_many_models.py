"""Boundaries of many models: cut in portions within one transaction, while everything else goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from services.metrics import cutting
from shared.contracts.snapshots import snapshot_id
from shared.database import connect_pool
from shared.effects import Effects
from shared.topics import SNAPSHOTS
from tests.metrics_world import MINUTE, MetricsWorld, label, prediction
from tests.support import make_consumer

MODELS = [f"model-{number:02d}" for number in range(12)]


@pytest.fixture
async def pool(module_database_dsn: str) -> AsyncIterator[Any]:
    """Connections to the module's database, emptied."""
    found = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=6)
    await MetricsWorld(found).forget()
    yield found
    await found.close()


@pytest.fixture
async def world(pool: Any, monkeypatch: pytest.MonkeyPatch) -> MetricsWorld:
    """Some models, of which each is a portion of its own."""
    monkeypatch.setattr(cutting, "SERIES_IN_A_PORTION", 1)
    found = MetricsWorld(pool)
    await found.begin()
    await found.take(
        *(prediction(model, 0, model=model) for model in MODELS),
        *(label(model, 10, number % 2) for number, model in enumerate(MODELS)),
    )
    return found


async def _count(world: MetricsWorld, table: str) -> int:
    return int(await world.pool.fetchval(f"SELECT count(*) FROM {table}"))


async def test_portions_are_one_boundary(world: MetricsWorld) -> None:
    for minute in (1, 2):
        snapshots = await world.cut(minute * MINUTE)
        assert [(one.model, one.sequence) for one in snapshots] == [(model, minute) for model in MODELS]
        assert {one.snapshot_id for one in snapshots} == {snapshot_id(model, minute) for model in MODELS}
        assert len({one.as_of for one in snapshots}) == 1
        assert all(one.offsets == {"predictions": {"0": 12}, "labels": {"0": 12}} for one in snapshots)
        assert [one.metrics.accuracy for one in snapshots] == [0.0, 1.0] * 6
    assert await _count(world, "snapshot") == 2 * len(MODELS)
    assert await _count(world, "latest_figures") == len(MODELS)


async def test_what_commits_between_two_portions_shows_in_none(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, turns = cutting._read_totals, Counter[str]()

    async def overtaken(*given: Any) -> Any:
        turns["read"] += 1
        more = f"more-{turns['read']}"
        await world.take(prediction(more, 1, model=MODELS[-1]), label(more, 20, 1))
        return await read(*given)

    monkeypatch.setattr(cutting, "_read_totals", overtaken)
    snapshots = await world.cut(MINUTE)
    assert turns["read"] == len(MODELS)
    assert all(one.offsets == {"predictions": {"0": 12}, "labels": {"0": 12}} for one in snapshots)
    assert [one.metrics.evaluated_predictions for one in snapshots] == [1] * len(MODELS)


async def test_the_loop_turns_between_any_two_models(world: MetricsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one portion as well: whoever else has something to do in the process has its turn."""
    monkeypatch.setattr(cutting, "SERIES_IN_A_PORTION", 1_000)
    monkeypatch.setattr(cutting, "SETS_IN_A_BREATH", 10)
    emit, turn, seen = Effects.emit, 0, []

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def witnessed(effects: Effects, *given: Any, **more: Any) -> bytes:
        seen.append(turn)
        return emit(effects, *given, **more)

    monkeypatch.setattr(Effects, "emit", witnessed)
    task = asyncio.create_task(others())
    try:
        await world.cut(MINUTE)
    finally:
        task.cancel()
    assert len(seen) == len(MODELS)
    assert len(set(seen)) == len(MODELS)


async def test_intake_commits_while_a_boundary_is_cut(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut holds no lock that intake waits for: batches become durable before it does."""
    compute, taken = cutting._compute, []

    async def slow(effects: Effects, *given: Any) -> Any:
        made = await compute(effects, *given)
        number = len(taken)
        facts = [prediction(f"new-{number}", 1, model=MODELS[0]), label(f"new-{number}", 20, 1)]
        consumer = make_consumer(world.handler, world.pool, service="metrics")
        await consumer.take([world.record(fact) for fact in facts], {})
        taken.append(await _count(world, "prediction"))
        return made

    monkeypatch.setattr(cutting, "_compute", slow)
    await world.cut(MINUTE)
    assert taken == [len(MODELS) + number for number in range(1, len(MODELS) + 1)]


@pytest.mark.parametrize("failing", range(0, len(MODELS), 4))
@pytest.mark.parametrize("where", ["_save", "_read_totals", "_compute"])
async def test_a_boundary_that_fails_in_any_portion_leaves_nothing(
    where: str, failing: int, world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, calls = getattr(cutting, where), 0

    async def fails(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise ConnectionError("gone")
        return await work(*given)

    monkeypatch.setattr(cutting, where, fails)
    before = asyncio.all_tasks()
    with pytest.raises(ConnectionError, match="gone"):
        await world.cut(MINUTE)
    assert asyncio.all_tasks() == before, "something goes on although the transaction has ended"
    assert [await _count(world, table) for table in ("snapshot", "latest_figures", "outbox")] == [0, 0, 0]
    assert [one.sequence for one in await world.cut(MINUTE)] == [1] * len(MODELS)


async def test_what_is_emitted_while_others_are_appended_goes_with_the_next(
    pool: Any, world: MetricsWorld
) -> None:
    snapshots: Sequence[Any] = await world.cut(MINUTE)
    async with pool.acquire() as connection, connection.transaction():
        effects = Effects("metrics", connection, world.clock.moment)
        effects.emit(SNAPSHOTS, snapshots[0], key="a")
        appending = asyncio.create_task(effects.flush())
        await asyncio.sleep(0)
        effects.emit(SNAPSHOTS, snapshots[1], key="b")
        assert await appending == 1
        assert await effects.flush() == 1
        assert await effects.flush() == 0
    assert [one.model for one in await world.published()] == MODELS[:2]
