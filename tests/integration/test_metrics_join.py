"""The join on a real PostgreSQL: its state is a function of the set of events, never of how they came."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.contracts.dead_letters import DeadLetter
from shared.database import connect_pool
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, POLICIES, PREDICTIONS, Topic
from tests.metrics_state import assert_figures, assert_nothing_to_rebuild, assert_state, label_buckets_of
from tests.metrics_world import (
    DAY,
    HOUR,
    MINUTE,
    START_SECONDS,
    Fact,
    MetricsWorld,
    classified,
    label,
    policy,
    prediction,
    run,
    valued,
    version,
)
from tests.metrics_world import at as moment
from tests.support import Emitted


@pytest.fixture
async def world(module_database_dsn: str) -> AsyncIterator[MetricsWorld]:
    """An instance on the module's database, emptied."""
    pool = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=4)
    found = MetricsWorld(pool)
    await found.forget()
    await found.begin()
    yield found
    await pool.close()


MOMENTS = st.sampled_from(
    [0, 0.000001, 59.999999, 60, 61.5, 3599, 3600, 3661, 40_000, 86_399.5, 86_400, 90_000, 180_000, 259_200]
)
# Few, so that predictions and labels meet, and meet again.
ENTITIES = st.sampled_from(["e", "e", "p0", "p1"])
DECLARED = st.sampled_from(
    [{}, {"region": ["eu"]}, {"region": ["eu", "us"], "tier": []}, {"tier": ["gold"]}, {"absent": ["x"]}]
)


BINARY = ("binary",)
EVERY_KIND = ("binary", "multiclass", "regression")
CLASSES = st.sampled_from(
    [
        {"a": 0.5, "b": 0.5},
        {"b": 0.25, "late": 0.25, "a": 0.5},
        {"a": 1.0, "late": 0.0},
        {"0": 0.001, "1": 0.998, "3": 0.001},
        {"😀": 0.4, "\uffff": 0.4, "a": 0.2},
    ]
)
# What a float can be: exact sums of these have six hundred digits, and of their squares twelve hundred.
VALUES = st.sampled_from(
    [0, -0.0, 0.1, 0.3, 0.30000000000000004, 12.25, -7, 1e300, -1.7976931348623157e308, 1e-300, 5e-324, 1 / 3]
)


@st.composite
def predictions(draw: st.DrawFn, kinds: tuple[str, ...] = BINARY) -> Fact:
    number = draw(st.integers(0, 3))
    kind = draw(st.sampled_from(kinds))
    more: dict[str, Any] = {}
    if draw(st.integers(0, 3)):
        more["entity_id"] = draw(ENTITIES)
    if kind == "binary" and draw(st.integers(0, 3)) == 0:
        more["predicted"] = draw(st.sampled_from([0, 1]))
    if draw(st.booleans()):
        more["segment"] = draw(
            st.sampled_from(
                [{"region": "eu"}, {"region": "us", "tier": "gold"}, {"region": "mars"}, {"tier": "gold"}]
            )
        )
    if draw(st.integers(0, 3)) == 0:
        more["data_as_of"] = moment(draw(MOMENTS))
    name, seconds = f"p{number}", draw(MOMENTS)
    more |= {"model": draw(st.sampled_from(["a", "a", "b"])), "version": draw(st.sampled_from(["1", "2"]))}
    if kind == "regression":
        return valued(name, seconds, draw(VALUES), **more)
    if kind == "multiclass":
        classes = draw(CLASSES)
        if draw(st.integers(0, 3)) == 0:
            more["predicted"] = draw(st.sampled_from(sorted(classes)))
        return classified(name, seconds, classes, **more)
    probability = draw(st.sampled_from([0, 1, 499, 500, 501, 580, 700, 999, 1000])) / 1000
    return prediction(name, seconds, probability, **more)


OUTCOMES = {
    BINARY: st.sampled_from([0, 0, 1, 1, None, "late", "Late", 0.5]),
    EVERY_KIND: st.sampled_from([0, 1, 3, None, "late", "a", "b", "Late", "3", "😀"]) | VALUES,
}
versions = st.builds(
    version,
    st.sampled_from(["1", "2", "3"]),
    MOMENTS,
    st.sampled_from(["champion", "champion", "candidate"]),
    model=st.sampled_from(["a", "b"]),
    trained_through=st.one_of(st.none(), MOMENTS.map(moment)),
)
runs = st.builds(run, MOMENTS, st.sampled_from(["success", "failed"]), model=st.sampled_from([None, "a"]))


@st.composite
def sets_of_events(draw: st.DrawFn, kinds: tuple[str, ...]) -> tuple[list[Fact], list[Fact]]:
    """What may come in any order, without conflicts, and policies, which count in theirs."""
    labels = st.builds(label, ENTITIES, MOMENTS, OUTCOMES[kinds])
    unique = st.lists(predictions(kinds), min_size=1, max_size=4, unique_by=lambda fact: fact[1]["prediction_id"])
    facts = draw(unique) + draw(st.lists(labels, min_size=1, max_size=6)) + draw(st.lists(runs, max_size=2))
    # One event a version and moment: of two that differ the greater document stands, which is not modelled here.
    facts += draw(st.lists(versions, max_size=3, unique_by=lambda fact: (fact[1]["version"], fact[1]["model"])))
    policies = [policy(model="a", segments=segments) for segments in draw(st.lists(DECLARED, max_size=2))]
    for _, event in facts:
        for name in [name for name, value in event.items() if value is None and name != "outcome"]:
            del event[name]
    return facts, policies


@st.composite
def deliveries(
    draw: st.DrawFn, kinds: tuple[str, ...] = BINARY
) -> tuple[list[Fact], list[list[tuple[Fact, int]]]]:
    """A set of events, and a delivery of it: order, repeats, partitions, batches."""
    facts, policies = draw(sets_of_events(kinds))
    repeated = facts + [fact for fact in facts if draw(st.integers(0, 2)) == 0]
    delivery = [(fact, draw(st.integers(0, 2))) for fact in draw(st.permutations(repeated))]
    for place, fact in enumerate(policies):
        delivery.insert(draw(st.integers(place, len(delivery))), (fact, 0))
    # Inserted at random, but in their own order.
    placed = iter(policies)
    delivery = [(next(placed), 0) if fact[0] is POLICIES else (fact, place) for fact, place in delivery]
    # Mostly many small batches: that is where a state is made of states.
    cuts = [place for place in range(1, len(delivery)) if draw(st.integers(0, 4))]
    bounds = itertools.pairwise([0, *cuts, len(delivery)])
    return facts + policies, [delivery[start:end] for start, end in bounds if start < end]


HORIZONS = st.sampled_from(
    [
        {"label_horizon": 90 * DAY, "correction_horizon": 30 * DAY},
        {"label_horizon": DAY, "correction_horizon": HOUR},
        {"label_horizon": HOUR, "correction_horizon": DAY},
        {"label_horizon": MINUTE, "correction_horizon": MINUTE},
    ]
)
AS_OF = st.sampled_from([MINUTE, 2 * MINUTE, HOUR, DAY, DAY + HOUR, 4 * DAY, 9 * DAY, 40 * DAY])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delivery=deliveries(), as_of=AS_OF, horizons=HORIZONS)
async def test_the_state_is_a_function_of_the_set_of_events(
    delivery: tuple[list[Fact], list[list[tuple[Fact, int]]]],
    as_of: int,
    horizons: dict[str, int],
    world: MetricsWorld,
) -> None:
    await check_a_delivery(delivery, as_of, horizons, world)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delivery=deliveries(EVERY_KIND), as_of=AS_OF, horizons=HORIZONS)
async def test_so_it_is_for_every_kind_and_for_kinds_that_mix(
    delivery: tuple[list[Fact], list[list[tuple[Fact, int]]]],
    as_of: int,
    horizons: dict[str, int],
    world: MetricsWorld,
) -> None:
    await check_a_delivery(delivery, as_of, horizons, world)


async def check_a_delivery(
    delivery: tuple[list[Fact], list[list[tuple[Fact, int]]]],
    as_of: int,
    horizons: dict[str, int],
    world: MetricsWorld,
) -> None:
    """Sums, counts and what stands, horizons in force. How often each verdict was counted depends on the order."""
    facts, batches = delivery
    # Champions of after the boundary are for the snapshots' own tests.
    facts = [fact for fact in facts if fact[0] is not MODEL_VERSIONS or fact[1]["registered_at"] <= moment(as_of)]
    await world.forget()
    world = MetricsWorld(world.pool, **{name: timedelta(seconds=length) for name, length in horizons.items()})
    await world.begin()
    for batch in batches:
        records = [world.record(fact, partition) for fact, partition in batch if fact in facts]
        emitted = await world.take_records(records)
        assert emitted == []
    plain = await assert_state(world, facts, **horizons)
    await assert_figures(world, plain, as_of)
    await assert_nothing_to_rebuild(world)


def reasons(emitted: list[Emitted]) -> list[tuple[str, str | None]]:
    assert {message.topic for message in emitted} <= {"dead-letters"}
    letters = [DeadLetter.model_validate_json(message.value) for message in emitted]
    return [(letter.reason, letter.field) for letter in letters]


CONFLICTS: list[dict[str, Any]] = [
    {"probability": 0.71},
    {"model": "other"},
    {"model_version": "2"},
    {"predicted_at": moment(0.000001)},
    {"entity_id": "another"},
    {"predicted": 0},
    {"segment": {"region": "eu"}},
    {"data_as_of": moment(0)},
]


@pytest.mark.parametrize("other", CONFLICTS, ids=lambda other: next(iter(other)))
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two"])
async def test_other_content_under_a_known_id_is_a_conflict(
    other: dict[str, Any], together: bool, world: MetricsWorld
) -> None:
    first = prediction("p", 0)
    second = (PREDICTIONS, first[1] | other)
    if together:
        emitted = await world.take(first, second)
    else:
        assert await world.take(first) == []
        emitted = await world.take(second, partition=1)
    assert reasons(emitted) == [("conflict", "prediction_id")]
    await world.take(label("p", 5), label("another", 5))
    await assert_state(world, [first, label("p", 5), label("another", 5)])


@pytest.mark.parametrize(
    "again",
    [
        {},
        {"entity_id": "p"},
        {"segment": {}},
        {"predicted_at": "2025-12-01T02:00:00+02:00"},
        {"no_such_field": 1},
        {"predicted_at": "2025-12-01T00:00:00.0000004Z"},
    ],
    ids=str,
)
async def test_the_same_said_in_other_words_is_a_duplicate(again: dict[str, Any], world: MetricsWorld) -> None:
    first = prediction("p", 0)
    assert await world.take(first, (PREDICTIONS, first[1] | again)) == []
    assert await world.take((PREDICTIONS, first[1] | again), partition=2) == []
    await assert_state(world, [first])


async def test_zero_is_zero_whatever_its_sign(world: MetricsWorld) -> None:
    await world.take(prediction("p", probability=-0.0), label("p", 1, 0.0))
    assert await world.take(prediction("p", probability=0.0), label("p", 1, -0.0)) == []
    await assert_state(world, [prediction("p", probability=0.0), label("p", 1, 0)])


@pytest.mark.parametrize("first", ["predictions", "label"])
async def test_one_label_settles_every_prediction_about_its_entity(first: str, world: MetricsWorld) -> None:
    made = [
        prediction("p1", 0, 0.7, entity_id="e"),
        prediction("p2", 10, 0.2, entity_id="e", version="2"),
        prediction("p3", 70, 0.4, entity_id="e", model="other"),
        prediction("e", 80, 0.9),
    ]
    settling = label("e", 30)
    for batch in [made, [settling]] if first == "predictions" else [[settling], made]:
        await world.take(*batch)
    plain = await assert_state(world, [*made, settling])
    assert sum(1 for _ in plain.evaluated()) == 4
    # New labels count entities, not predictions.
    assert {one.model: one.metrics.new_labels for one in await world.cut(DAY)} == {"m": 1, "other": 1}


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (label("p", 100, 1), label("p", 200, 0)),
        (label("p", 100, 1), label("p", 100 + DAY, 1)),
        (label("p", 100, 1), label("p", 100, None)),
        (label("p", 100, 1), label("p", 100, "late")),
        (label("p", 100, None), label("p", 200, 1)),
        (label("p", 0, 1), label("p", 1, 1)),
    ],
    ids=["outcome", "moment", "retraction", "class name", "after a retraction", "before the prediction still"],
)
@pytest.mark.parametrize("order", ["as observed", "reversed", "in one batch"])
async def test_a_correction_takes_the_old_contribution_out_exactly(
    before: Fact, later: Fact, order: str, world: MetricsWorld
) -> None:
    made = [prediction("p", 50, 0.123), prediction("q", 50, 0.987, version="2", entity_id="p")]
    await world.take(*made)
    corrections = [later, before] if order == "reversed" else [before, later]
    if order == "in one batch":
        await world.take(*corrections)
    else:
        for one in corrections:
            await world.take(one)
    await assert_figures(world, await assert_state(world, [*made, later]), 3 * DAY)


async def test_a_chain_of_corrections_leaves_no_trace(world: MetricsWorld) -> None:
    await world.take(prediction("p", 0, 0.333))
    for step in range(1, 30):
        await world.take(label("p", step * 7_000, [0, 1, None, "late"][step % 4]))
    await world.take(label("p", 10**6, None))
    await assert_state(world, [prediction("p", 0, 0.333), label("p", 10**6, None)])


async def test_the_newest_label_of_a_bucket_leaves_and_the_next_one_is_found(world: MetricsWorld) -> None:
    """Freshness at a boundary must not know a label that no longer stands, nor forget those that do."""
    made = [prediction(name, 0) for name in ("p", "q", "r", "s")]
    standing = [label("p", 10), label("q", 20), label("r", 20), label("s", 30)]
    await world.take(*made, *standing)
    for name, newest in (("s", 20), ("r", 20), ("q", 10)):
        moved = label(name, 3 * DAY)
        await world.take(moved)
        standing = [moved if fact[1]["entity_id"] == name else fact for fact in standing]
        await assert_state(world, [*made, *standing])
        _, newest_label_at, _ = (await label_buckets_of(world))["m", START_SECONDS]
        assert newest_label_at == (START_SECONDS + newest) * 10**6


async def test_segments_are_summed_anew_when_others_are_declared(world: MetricsWorld) -> None:
    made = [
        prediction(f"p{n}", n * 50, n / 10, segment={"region": region, "tier": "gold"})
        for n, region in enumerate(["eu", "us", "mars", "eu", "us"])
    ]
    facts: list[Fact] = [*made[:3], label("p0", 500), label("p1", 600, 0)]
    await world.take(*facts)
    for segments in ({"region": ["eu"]}, {"region": ["eu", "us"], "tier": ["gold"]}, {}, {"tier": ["silver"]}):
        declared = policy(segments=segments)
        await world.take(declared)
        facts.append(declared)
        await assert_state(world, facts)
    await world.take(*made[3:], label("p4", 700), label("p0", 900, 0))
    facts += [*made[3:], label("p4", 700), label("p0", 900, 0)]
    await assert_figures(world, await assert_state(world, facts), DAY)


async def test_the_policy_received_last_declares_the_segments_whatever_its_partition(world: MetricsWorld) -> None:
    """Policies sent without a key may lie in any partition; the broker's time of receipt tells which was last."""
    made = prediction("p", 0, segment={"region": "eu"})
    earlier, last = policy(segments={"region": ["us"]}), policy(segments={"region": ["eu"]}, window="1d")
    received = world.clock.moment
    await world.take(made)
    records = [
        world.feed.record(*earlier, partition=1, received_at=received),
        world.feed.record(*last, partition=0, received_at=received.replace(hour=1)),
    ]
    for record in reversed(records):
        await world.take_records([record])
    await assert_state(world, [made, earlier, last])
    assert (await world.one(DAY)).window == "1d"


async def test_a_thousand_classes_are_evaluated_and_more_are_refused(world: MetricsWorld) -> None:
    most = classified("most", 0, {str(number): 0.001 for number in range(1_000)})
    more = classified("more", 0, {str(number): 0.0005 for number in range(2_000)})
    settling = [label("most", 5, 999), label("more", 5, "7")]
    assert reasons(await world.take(more, most, *settling)) == [("unsupported", "probabilities")]
    await assert_figures(world, await assert_state(world, [most, *settling]), DAY)


GARBAGE: list[tuple[Topic, bytes | None, tuple[str, str | None]]] = [
    (PREDICTIONS, b"\xff\xfe", ("undecodable", None)),
    (PREDICTIONS, b"", ("undecodable", None)),
    (LABELS, None, ("undecodable", None)),
    (LABELS, b"[]", ("invalid", None)),
    (LABELS, b'{"entity_id": "' + b"x" * 2**21 + b'"}', ("too_large", None)),
    (PIPELINE_RUNS, b'{"pipeline": "p"}', ("invalid", "completed_at")),
    (PIPELINE_RUNS, b'{"eventType": "COMPLETE"}', ("invalid", "completed_at")),
    (MODEL_VERSIONS, b'{"tick": "2025-12-01T00:00:00Z"}', ("invalid", "model")),
    (POLICIES, b'{"model": "m", "window": "2d"}', ("invalid", "window")),
    (LABELS, b'{"tick": "2025-12-01"}', ("invalid", "tick")),
]


async def test_garbage_becomes_dead_letters_and_what_is_good_beside_it_counts(world: MetricsWorld) -> None:
    good = [prediction("p"), label("p", 1)]
    records = [world.feed.record(topic, value) for topic, value, _ in GARBAGE]
    emitted = await world.take_records([*records, *map(world.record, good)])
    letters = {
        (letter.topic, letter.offset): letter
        for letter in (DeadLetter.model_validate_json(message.value) for message in emitted)
    }
    assert len(emitted) == len(GARBAGE)
    for record, (_, value, (reason, _)) in zip(records, GARBAGE, strict=True):
        letter = letters[record.topic, record.offset]
        assert (letter.reason, letter.original_value()) == (reason, value)
    await assert_state(world, good)
