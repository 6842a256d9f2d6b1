"""Retention on a real PostgreSQL: what goes, what stays, and that nothing that comes later makes a sum wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from services.metrics import resuming, retention
from services.metrics.instruments import TOO_LATE_TOTAL
from services.metrics.retention import remove_old
from shared.contracts.dead_letters import DeadLetter
from shared.database import connect_pool
from shared.effects import Effects
from shared.errors import UsageError
from shared.settings import Settings
from tests.metrics_state import (
    assert_figures,
    assert_nothing_to_rebuild,
    buckets_of,
    every_byte,
    label_buckets_of,
)
from tests.metrics_world import (
    DAY,
    HOUR,
    MINUTE,
    START,
    Fact,
    MetricsWorld,
    at,
    classified,
    label,
    policy,
    prediction,
    run,
    valued,
    version,
)
from tests.plain_metrics import Plain
from tests.support import Emitted

LABEL_HORIZON, CORRECTION_HORIZON, RAW_RETENTION = 2 * DAY, DAY, 5 * DAY
LATER = 60 * DAY
RECEIVED_AT = START + timedelta(days=365)


def make_world(pool: Any, **more: Any) -> MetricsWorld:
    return MetricsWorld(
        pool,
        label_horizon=timedelta(seconds=LABEL_HORIZON),
        correction_horizon=timedelta(seconds=CORRECTION_HORIZON),
        raw_retention=timedelta(seconds=RAW_RETENTION),
        **more,
    )


@pytest.fixture
async def world(module_database_dsn: str) -> AsyncIterator[MetricsWorld]:
    """An instance on the module's database, emptied; the first boundary is cut."""
    pool = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=6)
    found = make_world(pool)
    await found.forget()
    await found.begin()
    await found.cut(MINUTE)
    yield found
    await pool.close()


async def take(world: MetricsWorld, *facts: Fact) -> list[Emitted]:
    """One batch, received after everything that these tests tell of."""
    return await world.take_records([world.record(fact, received_at=RECEIVED_AT) for fact in facts])


async def raw(world: MetricsWorld) -> tuple[int, int, int]:
    """How many raw predictions, labels, and labels that no longer stand there are."""
    outlived = "SELECT count(*) FROM answer LEFT JOIN prediction USING (prediction_key) WHERE entity_key IS NULL"
    assert await world.pool.fetchval(outlived) == 0, "what a prediction said goes with it"
    row = await world.pool.fetchrow(
        "SELECT (SELECT count(*) FROM prediction), (SELECT count(*) FROM label), "
        "(SELECT count(*) FROM superseded_label)"
    )
    return tuple(row)


def plainly(facts: Sequence[Fact]) -> Plain:
    return Plain(facts, label_horizon=LABEL_HORIZON, correction_horizon=CORRECTION_HORIZON)


def too_late(horizon: str) -> float:
    return TOO_LATE_TOTAL.labels(horizon=horizon)._value.get()


def refusals(emitted: Sequence[Emitted]) -> list[tuple[str, str | None]]:
    letters = [DeadLetter.model_validate_json(message.value) for message in emitted]
    return [(letter.reason, letter.field) for letter in letters]


OLD: list[Fact] = [
    policy(segments={"region": ["eu"]}),
    version("1", 0, trained_through=at(30)),
    prediction("labelled", 10, 0.9, segment={"region": "eu"}),
    label("labelled", 20),
    prediction("corrected", 30, 0.2, segment={"region": "us"}),
    label("corrected", 40),
    label("corrected", HOUR, 0),
    prediction("waiting", 50),
    prediction("shared-1", 60, entity_id="shared"),
    prediction("shared-2", 70, entity_id="shared", version="2", model="n"),
    label("shared", 2 * DAY),
    prediction("retracted", 80),
    label("retracted", 90),
    label("retracted", 100, None),
    classified("class", 61, {"a": 0.5, "b": 0.5}, segment={"region": "eu"}),
    label("class", 70, "b"),
    label("class", 2 * HOUR, "c"),
    valued("value", 62, 0.3, segment={"region": "us"}),
    label("value", 200, 0.1),
    valued("value-waiting", 63, 1.5),
    label("nobody", 110),
    run(120),
    run(130, "failed"),
    run(140),
]
YOUNG: list[Fact] = [
    prediction("young", LATER - DAY, 0.4, segment={"region": "eu"}),
    label("young", LATER - HOUR),
    prediction("young-waiting", LATER - HOUR, 0.6),
    label("young-nobody", LATER - HOUR),
    classified("class-young", LATER - DAY, {"a": 0.25, "b": 0.75}, segment={"region": "eu"}),
    label("class-young", LATER - HOUR, "a"),
    valued("value-young", LATER - DAY, -2.5),
    label("value-young", LATER - HOUR, 1e9),
]


async def grown_old(world: MetricsWorld) -> list[Fact]:
    """Old rows and young ones, two months later."""
    assert await take(world, *OLD) == []
    await world.cut(LATER)
    assert await take(world, *YOUNG) == []
    return [*OLD, *YOUNG]


async def test_what_is_old_goes_what_is_young_stays_and_every_figure_is_as_it_was(world: MetricsWorld) -> None:
    facts = await grown_old(world)
    days = {key: sums for key, sums in (await buckets_of(world)).items() if key[4] == DAY}
    labels = await label_buckets_of(world)
    assert await raw(world) == (13, 11, 3)
    await remove_old(world.context)
    assert await raw(world) == (4, 4, 0)
    assert {row["pipeline"] for row in await world.pool.fetch("SELECT * FROM pipeline_run")} == {"daily"}
    assert await world.pool.fetchval("SELECT count(*) FROM pipeline_run") == 1
    left = await buckets_of(world)
    assert {key: sums for key, sums in left.items() if key[4] == DAY} == days
    assert min(key[5] for key in left if key[4] < DAY) >= START.timestamp() + LATER - 32 * DAY
    keys = {
        table: {
            (row[0], row[1], row[2])
            for row in await world.pool.fetch(f"SELECT series_id, width, start FROM {table}")
        }
        for table in ("bucket", "bucket_detail")
    }
    assert keys["bucket_detail"] < keys["bucket"], "details go with their buckets"
    assert await label_buckets_of(world) == labels
    await assert_nothing_to_rebuild(world)
    await assert_figures(world, plainly(facts), LATER + MINUTE)


async def test_nothing_goes_before_its_time(world: MetricsWorld) -> None:
    await take(world, *OLD)
    await world.cut(32 * DAY + RAW_RETENTION - HOUR)
    before = await every_byte(world), await raw(world)
    # Narrow buckets are there for longer than these horizons: what is left of rows is kept by day.
    await world.pool.execute("UPDATE clock SET last_as_of = $1", int(START.timestamp()) + 32 * DAY - 1)
    await remove_old(world.context)
    assert (await every_byte(world), await raw(world)) == before
    await world.pool.execute("UPDATE clock SET last_as_of = $1", int(START.timestamp()) + 32 * DAY)
    await remove_old(world.context)
    assert await raw(world) != before[1]


async def test_history_that_is_loaded_late_is_kept_as_long_as_any(world: MetricsWorld) -> None:
    """Retention counts from the boundary at which a row was taken: else it would go before its label is loaded."""
    await world.cut(LATER)
    await take(world, prediction("p", 10), prediction("q", 20))
    await world.cut(LATER + RAW_RETENTION)
    await remove_old(world.context)
    await take(world, label("p", 30))
    assert await raw(world) == (2, 1, 0)
    # Their narrow buckets went meanwhile; the day's are whole.
    whole = plainly([prediction("p", 10), prediction("q", 20), label("p", 30)]).buckets()
    found = await buckets_of(world)
    assert {key: found[key] for key in whole if key[4] == DAY} == {
        key: sums for key, sums in whole.items() if key[4] == DAY
    }
    await assert_nothing_to_rebuild(world)


async def test_a_row_that_a_younger_one_still_needs_waits_for_it(world: MetricsWorld) -> None:
    await take(world, prediction("old", 10, entity_id="e"), prediction("other", 10))
    await world.cut(LATER)
    await take(world, prediction("young", LATER - DAY, entity_id="e"))
    await remove_old(world.context)
    assert {row["predicted_at"] for row in await world.pool.fetch("SELECT * FROM prediction")} == {
        int((START.timestamp() + seconds) * 10**6) for seconds in (10, LATER - DAY)
    }
    # It is not looked at again and again: it is kept from when the younger one is.
    assert await world.pool.fetchval("SELECT count(DISTINCT kept_from) FROM prediction") == 1
    await world.cut(LATER + 40 * DAY)
    await remove_old(world.context)
    assert await raw(world) == (0, 0, 0)
    await assert_nothing_to_rebuild(world)


async def test_a_prediction_that_may_have_been_counted_before_is_refused_and_said(world: MetricsWorld) -> None:
    await grown_old(world)
    await remove_old(world.context)
    before, counted = await every_byte(world), too_late("retention")
    again = next(fact for fact in OLD if fact[1].get("prediction_id") == "labelled")
    emitted = await take(world, again, prediction("unknown", 50))
    assert refusals(emitted) == [("too_late", "predicted_at")] * 2
    assert await every_byte(world) == before
    assert too_late("retention") - counted == 2
    # Of a model that nothing was removed of, and what is younger than what was, is taken.
    assert (
        refusals(
            await take(world, prediction("u1", 50, model="new"), prediction("u2", 81), prediction("u3", 80.001))
        )
        == []
    )
    await assert_nothing_to_rebuild(world)


async def test_a_label_for_a_prediction_that_is_gone_is_counted_and_changes_no_sum(world: MetricsWorld) -> None:
    await grown_old(world)
    await remove_old(world.context)
    before, counted = await every_byte(world), too_late("retention")
    late = [label("waiting", 60), label("labelled", 25, 0), label("corrected", 2 * HOUR, None)]
    for one in late:
        assert await take(world, one) == []
    assert await every_byte(world) == before
    assert too_late("retention") - counted == 3
    await take(world, label("for a prediction to come", LATER))
    assert too_late("retention") - counted == 3
    await world.cut(2 * LATER)
    await remove_old(world.context)
    assert await raw(world) == (0, 0, 0)
    await assert_nothing_to_rebuild(world)


async def test_a_label_beyond_a_horizon_is_counted_while_the_rows_are_there(world: MetricsWorld) -> None:
    made = [prediction("p", 0), prediction("q", 0), label("q", 10)]
    await take(world, *made)
    before = await every_byte(world)
    counted = too_late("label"), too_late("correction")
    late = [label("p", LABEL_HORIZON + 0.000001), label("q", 10 + CORRECTION_HORIZON + 0.000001, 0)]
    await take(world, *late)
    assert await every_byte(world) == before
    assert (too_late("label") - counted[0], too_late("correction") - counted[1]) == (1, 1)
    await assert_figures(world, plainly([*made, *late]), 4 * DAY)


async def test_nothing_goes_while_intake_is_behind(world: MetricsWorld) -> None:
    await grown_old(world)
    before = await raw(world)
    world.input.partitions = {("predictions", 0)}
    world.input.overdue = {("predictions", 0): 10**6}
    assert all(one.catching_up for one in await world.cut(LATER + MINUTE))
    await remove_old(world.context)
    assert await raw(world) == before
    world.input.overdue = {}
    await world.cut(LATER + 2 * MINUTE)
    await remove_old(world.context)
    assert await raw(world) != before


async def test_nothing_goes_after_a_restore_before_intake_has_been_looked_at(world: MetricsWorld) -> None:
    """Snapshots taken back from their topic move the clock on; what was taken before is still to come again."""
    facts = await grown_old(world)
    before = await raw(world)
    snapshots = await world.cut(LATER + MINUTE)
    lost = [
        one.model_copy(
            update={
                "sequence": one.sequence + 1,
                "as_of": one.as_of + timedelta(days=90),
                "offsets": {"labels": {"0": one.offsets["labels"]["0"] + 1}},
            }
        )
        for one in snapshots
    ]
    assert await resuming._store(world.context, lost) == len(lost)
    await remove_old(world.context)
    assert await raw(world) == before
    # A correction that came before the restore, and comes again: as late as it comes, it keeps its entity.
    again = label("young", LATER, 0)
    assert await take(world, again) == []
    await world.cut(LATER + 90 * DAY + 2 * MINUTE)
    await remove_old(world.context)
    assert await raw(world) == (1, 1, 1)
    await assert_nothing_to_rebuild(world)
    await assert_figures(world, plainly([*facts, again]), LATER + 90 * DAY + 3 * MINUTE)


async def test_rows_taken_before_the_first_boundary_are_kept_from_the_first_pass(world: MetricsWorld) -> None:
    await world.forget()
    await world.begin()
    await take(world, *OLD)
    assert await world.pool.fetchval("SELECT count(*) FROM prediction WHERE kept_from IS NOT NULL") == 0
    await remove_old(world.context)
    await world.cut(LATER)
    await remove_old(world.context)
    assert (await raw(world))[0] == 9
    await world.cut(LATER + 32 * DAY + HOUR)
    await remove_old(world.context)
    assert await raw(world) == (0, 0, 0)


async def test_segments_declared_after_rows_went_are_summed_as_far_back_as_rows_go(world: MetricsWorld) -> None:
    facts = await grown_old(world)
    await remove_old(world.context)
    before = await every_byte(world)
    await take(world, policy(segments={"region": ["eu", "us"], "tier": ["gold"]}))
    await assert_nothing_to_rebuild(world)
    found = await buckets_of(world)
    old_day, young_day = (int(START.timestamp()) + seconds // DAY * DAY for seconds in (0, LATER - DAY))
    # "us" was counted among the others while its row was there, and still is.
    assert found["m", "1", "binary", "region:other", DAY, old_day][0]["predictions"] == 4
    assert ("m", "1", "binary", "region:us", DAY, old_day) not in found
    assert ("m", "1", "binary", "tier:other", DAY, old_day) not in found
    assert (
        found["m", "1", "binary", "tier:other", DAY, young_day][0]
        == found["m", "1", "binary", "", DAY, young_day][0]
    )
    # What was declared before, declared again, is what it was.
    await take(world, policy(segments={}))
    await assert_nothing_to_rebuild(world)
    await take(world, policy(segments={"region": ["eu"]}))
    await assert_nothing_to_rebuild(world)
    after = await every_byte(world)
    assert (after["bucket"], after["bucket_detail"]) == (before["bucket"], before["bucket_detail"])
    await assert_figures(world, plainly([*facts, policy(segments={"region": ["eu"]})]), LATER + MINUTE)


async def test_new_labels_of_another_champion_are_counted_over_rows_that_are_gone(world: MetricsWorld) -> None:
    facts = await grown_old(world)
    await remove_old(world.context)
    promoted = version("2", LATER - 2 * DAY, trained_through=at(MINUTE))
    await take(world, promoted)
    await assert_figures(world, plainly([*facts, promoted]), LATER + MINUTE)
    await assert_nothing_to_rebuild(world)


async def test_an_entity_named_again_long_after_its_rows_went_is_another(world: MetricsWorld) -> None:
    await grown_old(world)
    await remove_old(world.context)
    again = [prediction("again", LATER, entity_id="labelled"), label("labelled", LATER, 0)]
    await take(world, *again)
    day = int(START.timestamp()) + LATER
    assert (await buckets_of(world))["m", "1", "binary", "", DAY, day][0]["evaluated"] == 1
    await assert_nothing_to_rebuild(world)


async def test_old_snapshots_go_and_the_newest_of_a_model_stays(world: MetricsWorld) -> None:
    keeping = make_world(world.pool, snapshot_retention=timedelta(hours=2))
    await take(world, prediction("p", 0, version="1"), version("1", 0), prediction("q", 0, model="n"))
    for hour in (1, 2, 3, 4):
        await keeping.cut(hour * HOUR)
        if hour == 1:
            await take(world, version("1", HOUR, "retired"))
    await remove_old(keeping.context)
    rows = await world.pool.fetch("SELECT model, sequence FROM published_snapshots ORDER BY model, sequence")
    # The retired model has made none since, and keeps its last.
    assert [(row["model"], row["sequence"]) for row in rows] == [("m", 1), ("n", 2), ("n", 3), ("n", 4)]


async def test_portions_and_instances_make_no_difference(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several instances at once, in small portions, while batches come that touch the same entities."""
    monkeypatch.setattr(retention, "ENTITIES_A_TURN", 3)
    monkeypatch.setattr(retention, "ROWS_A_TURN", 5)
    chance = random.Random(7)
    old = [prediction(f"p{n}", n * HOUR, 0.3, model=f"m{n % 3}", entity_id=f"e{n % 25}") for n in range(40)]
    old += [label(f"e{n}", n * HOUR + chance.randrange(DAY), n % 2) for n in range(20)]
    await take(world, *old)
    await world.cut(LATER)
    young = [prediction(f"y{n}", LATER - n, 0.6, model=f"m{n % 3}", entity_id=f"e{n}") for n in range(25)]

    async def batches() -> None:
        for start in range(0, len(young), 5):
            await take(world, *young[start : start + 5])

    others = [make_world(world.pool).context for _ in range(2)]
    await asyncio.gather(remove_old(world.context), batches(), *map(remove_old, others))
    await assert_nothing_to_rebuild(world)
    found = await buckets_of(world)
    expected = plainly([*old, *young]).buckets()
    assert {key: found[key] for key in expected if key[4] == DAY} == {
        key: sums for key, sums in expected.items() if key[4] == DAY
    }


@pytest.mark.parametrize("seed", range(3))
async def test_months_of_events_that_come_in_time_are_summed_as_if_nothing_ever_went(
    seed: int, world: MetricsWorld
) -> None:
    """Delayed, repeated, corrected, out of order; a pass of retention every day."""
    chance = random.Random(seed)
    slack = RAW_RETENTION - LABEL_HORIZON - CORRECTION_HORIZON
    arriving: list[tuple[float, Fact]] = []
    for number in range(120):
        made = chance.uniform(0, 50 * DAY)
        # Pairs lie less than 31 days apart: beyond, the rows of the first may be gone, and it would be another.
        entity = f"e{number}" if number % 3 else f"pair{number // 6}-{int(made // (25 * DAY))}"
        say = chance.choice(
            [
                partial(prediction, probability=chance.choice([0.2, 0.7])),
                partial(classified, probabilities=chance.choice([{"a": 0.5, "1": 0.5}, {"b": 1.0, "c": 0.0}])),
                partial(valued, value=chance.choice([0.1, -7, 1e300])),
            ]
        )
        arriving.append((made, say(f"p{number}", made, entity_id=entity)))
        for _ in range(chance.randrange(3)):
            observed = made + chance.uniform(-HOUR, LABEL_HORIZON + CORRECTION_HORIZON + HOUR)
            arriving.append((observed, label(entity, max(0, observed), chance.choice([0, 1, None, "a"]))))
    arriving = [(moment + chance.uniform(0, slack), fact) for moment, fact in arriving]
    arriving += [(moment + chance.uniform(0, HOUR), fact) for moment, fact in arriving if chance.random() < 0.2]
    arriving.sort(key=lambda one: one[0])
    for day in range(1, 90):
        batch = [fact for moment, fact in arriving if (day - 1) * DAY <= moment < day * DAY]
        await world.cut(day * DAY)
        assert await take(world, *batch) == []
        await remove_old(world.context)
    plain = plainly([fact for _, fact in arriving])
    found = await buckets_of(world)
    days = {key: sums for key, sums in plain.buckets().items() if key[4] == DAY}
    assert {key: sums for key, sums in found.items() if key[4] == DAY} == days
    assert await label_buckets_of(world) == plain.label_buckets()
    assert (await raw(world))[0] < 30 < len(plain.predictions)
    await assert_nothing_to_rebuild(world)
    await assert_figures(world, plain, 90 * DAY)


async def test_another_horizon_needs_another_database(world: MetricsWorld) -> None:
    other = MetricsWorld(world.pool)
    with pytest.raises(UsageError, match="begun with a label horizon of 172800 s"):
        await other.begin()
    with pytest.raises(UsageError, match="correction horizon of 86400 s"):
        async with world.pool.acquire() as connection, connection.transaction():
            await other.handler([world.record(prediction("p"))], Effects("metrics", connection, START))
    assert await raw(world) == (0, 0, 0)


async def test_a_database_begun_without_horizons_goes_on_with_those_it_is_given(world: MetricsWorld) -> None:
    """So it is after an upgrade; labels then tell only of the one that stands."""
    await take(world, prediction("p", 0), label("p", 10))
    await world.pool.execute("UPDATE clock SET label_horizon_seconds = NULL, correction_horizon_seconds = NULL")
    await world.pool.execute("UPDATE label SET first_observed_at = NULL, kept_from = NULL")
    await world.pool.execute("UPDATE prediction SET kept_from = NULL")
    await world.begin()
    await take(world, label("p", 20, 0), label("p", 11 + CORRECTION_HORIZON, 1))
    facts = [prediction("p", 0), label("p", 10), label("p", 20, 0), label("p", 11 + CORRECTION_HORIZON, 1)]
    assert await buckets_of(world) == plainly(facts).buckets()
    await assert_nothing_to_rebuild(world)


def test_the_loop_needs_the_services_own_settings() -> None:
    with pytest.raises(UsageError, match="needs MetricsSettings"):
        retention.settings_of(Settings())
