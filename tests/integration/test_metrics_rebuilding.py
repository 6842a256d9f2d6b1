"""Sums held against raw rows: nothing changes where they are right, all of it is mended where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.metrics import rebuilding
from services.metrics.domain.buckets import DAY_SECONDS
from services.metrics.domain.identity import id_of
from services.metrics.rebuilding import Findings, models_to_rebuild, rebuild_model
from shared.database import connect_pool
from shared.errors import TruewardError, UsageError
from tests.metrics_state import assert_figures, assert_nothing_to_rebuild, assert_state, every_byte
from tests.metrics_world import (
    DAY,
    HOUR,
    Fact,
    MetricsWorld,
    classified,
    label,
    policy,
    prediction,
    valued,
    version,
)
from tests.metrics_world import at as moment


@pytest.fixture
async def world(module_database_dsn: str) -> AsyncIterator[MetricsWorld]:
    """An instance on the module's database, emptied."""
    pool = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=6)
    found = MetricsWorld(pool)
    await found.forget()
    await found.begin()
    yield found
    await pool.close()


FACTS: list[Fact] = [
    policy(segments={"region": ["eu"]}),
    version("1", 0, trained_through=moment(100)),
    *[
        prediction(f"p{n}", n * HOUR, (n % 10) / 10, segment={"region": ["eu", "us"][n % 2]}, version=str(n % 3))
        for n in range(30)
    ],
    *[label(f"p{n}", n * HOUR + 50 * n, n % 2) for n in range(25)],
    label("p3", 2 * DAY, None),
    label("p4", 2 * DAY, 1),
    prediction("q", 0, 0.5, model="other", entity_id="p1"),
    *[classified(f"c{n}", n * HOUR, {"a": 0.5, "b": 0.3, "3": 0.2}, segment={"region": "eu"}) for n in range(8)],
    *[label(f"c{n}", n * HOUR + 60, ["a", "b", "unnamed", 3][n % 4]) for n in range(7)],
    label("c0", 2 * DAY, "b"),
    *[valued(f"v{n}", n * HOUR, n / 3, segment={"region": "us"}, version="2") for n in range(8)],
    *[label(f"v{n}", n * HOUR + 60, 0.1 * n) for n in range(7)],
    label("v0", 2 * DAY, -1e300),
]


async def rebuild(world: MetricsWorld, *, check: bool = False, model: str = "m") -> Findings:
    async with world.pool.acquire() as connection:
        return await rebuild_model(connection, id_of(model), check=check)


@pytest.mark.parametrize("check", [True, False])
async def test_a_healthy_system_is_left_as_it_is_to_the_byte(check: bool, world: MetricsWorld) -> None:
    await world.take(*FACTS[:40])
    await world.take(*FACTS[40:])
    await world.cut(HOUR)
    # What came and went again leaves zeros, which stay too.
    await world.take(prediction("gone", 0), label("gone", 5))
    await world.take(label("gone", 6, None))
    await world.take(classified("c-gone", 0, {"a": 0.5, "z": 0.5}), label("c-gone", 5, "z"))
    await world.take(valued("v-gone", 9 * DAY, 0.5), label("v-gone", 9 * DAY + 5, 7))
    await world.take(label("c-gone", 6, None), label("v-gone", 9 * DAY + 6, None))
    before = await every_byte(world)
    for model, predictions in (("m", 49), ("other", 1)):
        findings = await rebuild(world, check=check, model=model)
        assert (findings.model, findings.raw_predictions, findings.differences) == (model, predictions, [])
        assert findings.buckets > 0
    assert await every_byte(world) == before


DAMAGES = {
    "a figure": "UPDATE bucket SET correct = correct + 3, squared_error = squared_error - 1 WHERE width = 3600",
    "a histogram": r"UPDATE bucket SET histogram = '\x0100ffffffffffffff7f'",
    "a histogram that cannot be read": r"UPDATE bucket SET histogram = '\x010203' WHERE width = 86400",
    "a histogram out of order": r"UPDATE bucket SET histogram = '\x0200010000000000000001000100000000000000'",
    "buckets that are gone": "DELETE FROM bucket WHERE start % 7200 = 0",
    "a detail": "UPDATE bucket_detail SET error = error + 1, squared_error = squared_error - 3 WHERE width = 3600",
    "classes of a detail": "UPDATE bucket_detail SET classes = '' WHERE width = 60",
    "classes that cannot be read": r"UPDATE bucket_detail SET classes = '\x010203' WHERE width = 86400",
    "classes that nobody knows": (
        "UPDATE bucket_detail SET classes = decode(repeat('0500000000000000', 3), 'hex') || classes"
    ),
    "the names of classes": "DELETE FROM class",
    "details that are gone": "DELETE FROM bucket_detail WHERE start % 7200 = 0",
    "details without their buckets": "DELETE FROM bucket WHERE width = 3600",
    "details that never were": (
        "INSERT INTO bucket_detail "
        "SELECT (jsonb_populate_record(d, jsonb_build_object('start', start + 864000))).* FROM bucket_detail AS d"
    ),
    "every bucket gone": (
        "DELETE FROM bucket; DELETE FROM bucket_detail; DELETE FROM series; DELETE FROM class; "
        "DELETE FROM label_bucket"
    ),
    "the series gone": "DELETE FROM series",
    "buckets that never were": (
        "INSERT INTO bucket "
        "SELECT (jsonb_populate_record(bucket, jsonb_build_object('start', start + 864000))).* FROM bucket"
    ),
    "labels": "UPDATE label_bucket SET labelled_entities = 7, newest_label_at = NULL, newest_labels = 9",
    "labels that are gone": "DELETE FROM label_bucket WHERE start % 7200 = 0",
    "new labels": "UPDATE model SET new_labels = 1000",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
async def test_damage_is_found_and_mended(damage: str, world: MetricsWorld) -> None:
    await world.take(*FACTS)
    await world.cut(HOUR)
    await world.pool.execute(damage)
    damaged = await every_byte(world)
    found = await rebuild(world, check=True)
    assert found.differences
    assert await every_byte(world) == damaged, "a check changes nothing"
    mended = await rebuild(world)
    assert mended.differences == found.differences
    await rebuild(world, model="other")
    await assert_figures(world, await assert_state(world, FACTS), 3 * DAY)
    await assert_nothing_to_rebuild(world)


async def test_what_differed_is_said(world: MetricsWorld) -> None:
    await world.take(*FACTS)
    await world.pool.execute(
        "UPDATE bucket SET correct = 0, evaluated = evaluated + 1 FROM series JOIN version USING (version_id) "
        "WHERE bucket.series_id = series.series_id AND width = $1 AND version = '1' AND segment = 'region:eu' "
        "AND kind = 'binary' AND start = (SELECT min(start) FROM bucket WHERE width = $1)",
        DAY_SECONDS,
    )
    (difference,) = (await rebuild(world)).differences
    start = await world.pool.fetchval("SELECT min(start) FROM bucket WHERE width = $1", DAY_SECONDS)
    assert (difference.what, difference.version, difference.segment) == ("bucket", "1", "region:eu")
    assert (difference.width_seconds, difference.start) == (DAY_SECONDS, start)
    assert difference.figures == ("evaluated", "correct")


async def test_so_is_what_differed_in_detail(world: MetricsWorld) -> None:
    await world.take(*FACTS)
    await world.pool.execute(
        "UPDATE bucket_detail SET error = error + 1, classes = '' FROM series JOIN version USING (version_id) "
        "WHERE bucket_detail.series_id = series.series_id AND width = 3600 AND kind = 'multiclass' "
        "AND segment = '' AND start = (SELECT min(start) FROM bucket_detail WHERE width = 3600)"
    )
    (difference,) = (await rebuild(world)).differences
    assert (difference.what, difference.version, difference.segment) == ("bucket", "1", "")
    assert difference.figures == ("detail_error", "detail_classes")


async def test_batches_that_come_while_sums_are_compared_are_counted_once(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the raw rows and the mending the services go on, at the very buckets that are wrong."""
    await world.take(*FACTS)
    await world.pool.execute("UPDATE bucket SET correct = correct + 1, histogram = ''")
    later = [prediction("late", 0, 0.9, version="1"), label("late", 10), label("p5", 9 * DAY, 0)]
    find = rebuilding._find

    async def then_a_batch(*arguments: Any) -> Findings:
        findings = await find(*arguments)
        if later:
            await world.take(*later)
            facts.extend(later)
            later.clear()
        return findings

    facts = list(FACTS)
    monkeypatch.setattr(rebuilding, "_find", then_a_batch)
    await rebuild(world)
    await rebuild(world, model="other")
    await assert_figures(world, await assert_state(world, facts), 20 * DAY)


async def test_sums_replaced_meanwhile_are_compared_again(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments declared anew, another champion, another rebuild: what was found wrong is right by then."""
    await world.take(*FACTS)
    facts = list(FACTS)
    find = rebuilding._find
    looks = 0

    async def then_another(connection: Any, model_id: int, step: Any) -> Findings:
        nonlocal looks
        looks += 1
        findings = await find(connection, model_id, step)
        if looks == 1:
            await world.take(policy(segments={}))
            await world.take(policy(segments={"region": ["eu"]}))
        if looks == 2:
            await rebuild(world)
        return findings

    await world.pool.execute("UPDATE bucket SET evaluated = evaluated + 5")
    monkeypatch.setattr(rebuilding, "_find", then_another)
    await rebuild(world)
    assert looks == 4, "twice it had to look again; the other rebuild looked once"
    await rebuild(world, model="other")
    await assert_state(world, facts)


async def test_two_rebuilds_at_once_mend_once(world: MetricsWorld) -> None:
    await world.take(*FACTS)
    await world.pool.execute("UPDATE bucket SET evaluated = evaluated + 5; UPDATE model SET new_labels = 77")
    await asyncio.gather(*(rebuild(world) for _ in range(3)))
    await rebuild(world, model="other")
    await assert_figures(world, await assert_state(world, FACTS), 3 * DAY)


async def test_a_model_that_stays_locked_is_said(world: MetricsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.take(*FACTS)
    await world.pool.execute("UPDATE bucket SET evaluated = evaluated + 5")
    monkeypatch.setattr(rebuilding, "ATTEMPTS", 1)
    async with world.pool.acquire() as holder, holder.transaction():
        await rebuilding.store.lock_models(holder, [id_of("m")])
        async with world.pool.acquire() as connection:
            await connection.execute("SET lock_timeout = '50ms'")
            with pytest.raises(TruewardError, match="the sums of m could not be mended"):
                await rebuild_model(connection, id_of("m"), check=False)


async def test_models_are_told_by_name(world: MetricsWorld) -> None:
    await world.take(*FACTS)
    async with world.pool.acquire() as connection:
        found = await models_to_rebuild(connection)
        assert [(row.model, row.predictions) for row in found] == [("m", 46), ("other", 1)]
        assert [row.model for row in await models_to_rebuild(connection, ["other"])] == ["other"]
        with pytest.raises(UsageError, match="no model 'x' is known here; known are m, other"):
            await models_to_rebuild(connection, ["x", "m"])


async def test_before_the_first_start_there_is_nothing_to_compare_with(world: MetricsWorld) -> None:
    await world.take(*FACTS)
    await world.pool.execute("DELETE FROM clock")
    with pytest.raises(TruewardError, match="has not been started"):
        await rebuild(world)
