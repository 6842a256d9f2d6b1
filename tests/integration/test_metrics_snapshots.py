"""Snapshots on a real PostgreSQL: whose they are, what they hold, and when they are cut on the wall clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.metrics import clocks, cutting
from shared.contracts.base import canonical_json
from shared.contracts.models import Policy
from shared.contracts.snapshots import Metrics, Snapshot, snapshot_id
from shared.database import connect_pool
from shared.errors import UsageError
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.topics import PIPELINE_RUNS
from tests.metrics_world import (
    DAY,
    HOUR,
    MINUTE,
    START,
    Fact,
    MetricsWorld,
    at,
    label,
    policy,
    prediction,
    run,
    valued,
    version,
)
from tests.support import drain_outbox


@pytest.fixture
async def pool(module_database_dsn: str) -> AsyncIterator[Any]:
    """Connections to the module's database, emptied."""
    found = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=6)
    await MetricsWorld(found).forget()
    yield found
    await found.close()


@pytest.fixture
async def world(pool: Any) -> MetricsWorld:
    found = MetricsWorld(pool)
    await found.begin()
    return found


async def test_each_model_has_one_sequence(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), prediction("q", 10, model="other"))
    assert [(one.model, one.sequence) for one in await world.cut(MINUTE)] == [("m", 1), ("other", 1)]
    await world.take(prediction("r", 70, model="third"))
    found = [(one.model, one.sequence) for one in await world.cut(2 * MINUTE)]
    assert found == [("m", 2), ("other", 2), ("third", 1)]
    assert [one.sequence for one in await world.cut(3 * MINUTE)] == [3, 3, 2]


async def test_a_snapshot_is_stored_published_and_addressed_as_what_it_is(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), label("p", 20), run(5))
    world.clock.moment = START + timedelta(seconds=MINUTE)
    assert await clocks.cut_wall(world.context)
    (message,) = await drain_outbox(world.pool)
    snapshot = Snapshot.model_validate_json(message.value)
    assert (message.topic, message.key) == ("snapshots", b"m")
    assert message.headers["ce_id"] == snapshot.snapshot_id == snapshot_id("m", 1)
    assert message.headers["ce_type"] == "trueward.snapshot.v1"
    assert message.headers["ce_time"] == "2025-12-01T00:01:00Z"
    for view in ("published_snapshots", "published_latest_snapshots"):
        (row,) = await world.pool.fetch(f"SELECT * FROM {view}")
        assert canonical_json(row["document"]) == message.value
        assert (row["model"], row["sequence"], row["as_of"]) == ("m", 1, snapshot.as_of)
    (row,) = await world.pool.fetch("SELECT * FROM published_models")
    assert (row["model"], row["champion"], row["last_sequence"], row["policy"]) == ("m", None, 1, None)
    assert (row["versions"], row["unregistered_versions"]) == ([], ["1"])


async def test_a_snapshot_says_how_it_was_made(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), label("p", 20))
    await world.take(prediction("q", 10), partition=2)
    snapshot = await world.one(MINUTE)
    assert (snapshot.clock, snapshot.interval_seconds, snapshot.as_of) == (
        "wall",
        60,
        START + timedelta(minutes=1),
    )
    assert snapshot.offsets == {"predictions": {"0": 1, "2": 1}, "labels": {"0": 1}}
    assert (snapshot.missed_boundaries, snapshot.catching_up) == (0, False)
    assert (snapshot.window, snapshot.policy) == ("7d", Policy(model="m"))
    assert snapshot.policy_sha256 == Policy(model="m").sha256()


async def test_what_was_published_stays_what_it_was(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), label("p", 20))
    first = await world.one(MINUTE)
    await world.take(label("p", 70, 0), version("1", 80), policy(window="1h"))
    second = await world.one(2 * MINUTE)
    rows = await world.pool.fetch("SELECT document FROM published_snapshots ORDER BY sequence")
    documents = [Snapshot.model_validate_json(json.dumps(row["document"])) for row in rows]
    assert documents == [first, second]
    assert (first.metrics.accuracy, second.metrics.accuracy) == (1.0, 0.0)


async def test_a_model_that_was_only_registered_or_given_a_policy_has_snapshots_of_nothing(
    world: MetricsWorld,
) -> None:
    await world.take(version("1", 10, "candidate"), policy(model="planned"))
    for snapshot in await world.cut(MINUTE):
        known = snapshot.metrics.known()
        assert {name for name, value in known.items() if value not in (None, 0, [])} == {"kind"}
        assert (known["evaluated_predictions"], known["new_labels"], known["accuracy"]) == (0, 0, None)
    assert await world.pool.fetchval("SELECT count(*) FROM snapshot") == 2


async def test_a_version_of_the_future_makes_no_model(world: MetricsWorld) -> None:
    await world.take(version("1", 90))
    assert await world.cut(MINUTE) == []
    assert [one.sequence for one in await world.cut(2 * MINUTE)] == [1]


@pytest.mark.parametrize("interval", [10, MINUTE, HOUR, DAY])
async def test_boundaries_missed_are_counted_and_not_made_up(interval: int, pool: Any) -> None:
    world = MetricsWorld(pool, interval=interval)
    await world.begin()
    await world.take(prediction("p", 5))
    found = []
    for number in (1, 2, 6, 7):
        snapshot = await world.one(number * interval + 3)
        found.append((snapshot.sequence, snapshot.as_of - START, snapshot.missed_boundaries))
    width = timedelta(seconds=interval)
    assert found == [(1, width, 0), (2, 2 * width, 0), (3, 6 * width, 3), (4, 7 * width, 0)]


async def test_a_boundary_is_cut_when_it_has_passed_and_once(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10))
    assert [one.as_of for one in await world.cut(MINUTE + 59)] == [START + timedelta(minutes=1)]
    for seconds in (MINUTE, MINUTE + 1, 2 * MINUTE - 1, 0):
        assert await world.cut(seconds) == []
    assert [one.sequence for one in await world.cut(2 * MINUTE)] == [2]


async def test_a_longer_interval_goes_on_in_the_same_sequence(world: MetricsWorld, pool: Any) -> None:
    await world.take(prediction("p", 10))
    await world.one(4 * MINUTE)
    longer = MetricsWorld(pool, interval=5 * MINUTE)
    await longer.begin()
    snapshot = await longer.one(5 * MINUTE)
    assert (snapshot.sequence, snapshot.missed_boundaries, snapshot.interval_seconds) == (2, 0, 300)
    assert (await longer.one(20 * MINUTE)).missed_boundaries == 2


@pytest.mark.parametrize(
    ("clock", "interval", "reason"),
    [
        ("event", MINUTE, "begun with the wall clock; the event clock needs a new one"),
        ("wall", 10, "begun with buckets of 60 s; this snapshot interval needs 10 s"),
    ],
)
async def test_another_clock_or_other_buckets_are_refused_before_a_record_is_taken(
    clock: str, interval: int, reason: str, world: MetricsWorld, pool: Any
) -> None:
    """The consumer starts beside the clock: it must not rely on the clock having looked first."""
    await world.take(prediction("p", 10))
    other = MetricsWorld(pool, clock=clock, interval=interval)
    other.feed = world.feed
    with pytest.raises(UsageError, match=reason):
        await other.begin()
    with pytest.raises(UsageError, match=reason):
        await other.take(prediction("q", 20))
    assert await pool.fetchval("SELECT count(*) FROM prediction") == 1
    assert await pool.fetchval("SELECT next_offset FROM inbox") == 1


async def test_an_event_clock_of_another_interval_is_refused(pool: Any) -> None:
    await MetricsWorld(pool, clock="event", interval=HOUR).begin()
    with pytest.raises(UsageError, match="begun with an interval of 3600 s"):
        await MetricsWorld(pool, clock="event", interval=DAY).begin()


@pytest.mark.parametrize(
    ("seconds", "predictions", "evaluated"),
    [
        # Predicted at 30 min, settled at 90 min; the window is an hour.
        (30 * MINUTE, 0, 0),
        (31 * MINUTE, 1, 0),
        (90 * MINUTE, 1, 0),
        (91 * MINUTE, 0, 1),
        (150 * MINUTE, 0, 1),
        (151 * MINUTE, 0, 0),
    ],
)
async def test_a_window_begins_with_its_first_moment_and_ends_before_as_of(
    seconds: int, predictions: int, evaluated: int, world: MetricsWorld
) -> None:
    await world.take(policy(window="1h"), prediction("p", 30 * MINUTE), label("p", 90 * MINUTE))
    metrics = (await world.one(seconds)).metrics
    assert (metrics.predictions, metrics.evaluated_predictions) == (predictions, evaluated)


@pytest.mark.parametrize("predicted", [None, 0, 1])
async def test_the_decision_taken_counts_in_accuracy_and_the_probability_elsewhere(
    predicted: int | None, world: MetricsWorld
) -> None:
    more: dict[str, Any] = {} if predicted is None else {"predicted": predicted}
    await world.take(prediction("p", 0, 0.5, **more), label("p", 10, 1))
    metrics = (await world.one(MINUTE)).metrics
    assert metrics.accuracy == metrics.predicted_positive_rate == (0.0 if predicted == 0 else 1.0)
    assert (metrics.brier_score, metrics.log_loss) == (0.25, 0.693147181)


async def test_metrics_mean_the_champion_and_all_versions_while_none_was_named(world: MetricsWorld) -> None:
    await world.take(*(prediction(f"p{n}", n, version="1" if n < 3 else "2") for n in range(4)))
    await world.take(*(label(f"p{n}", 10, int(n == 0)) for n in range(4)))
    together = await world.one(MINUTE)
    assert (together.champion, together.metrics.evaluated_predictions, together.metrics.accuracy) == (
        None,
        4,
        0.25,
    )
    await world.take(version("2", 70), version("1", 65), version("9", 200))
    second = await world.one(2 * MINUTE)
    assert second.champion is not None
    assert (second.champion.version, second.metrics.evaluated_predictions) == ("2", 1)
    assert {name: one.evaluated_predictions for name, one in second.versions.items()} == {"1": 3, "2": 1}
    ninth = await world.one(4 * MINUTE)
    assert ninth.champion is not None
    assert (ninth.champion.version, ninth.metrics.evaluated_predictions, ninth.metrics.accuracy) == ("9", 0, None)


async def test_the_champion_is_told_with_what_was_said_of_it(world: MetricsWorld) -> None:
    artifact = {"uri": "s3://models/1", "sha256": "a" * 64, "size_bytes": 5, "created_at": at(1)}
    await world.take(version("1", 10, artifact=artifact, trained_through=at(2), changed_at=at(20), job_id="j"))
    champion = (await world.one(MINUTE)).champion
    assert champion is not None
    assert (champion.version, champion.changed_at) == ("1", START + timedelta(seconds=20))
    assert champion.trained_through == START + timedelta(seconds=2)
    assert champion.artifact is not None
    assert champion.artifact.known()["uri"] == "s3://models/1"


LABELS_AT = (10, 65, 70, 119.999999, 120, 180, 200)
"""When the seven labels of the next test were observed; boundaries of their buckets are at 60, 120 and 180."""


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        (None, 7),
        (version("1", 0, trained_through=at(0)), 7),
        (version("1", 0, trained_through=at(10)), 6),
        (version("1", 0, trained_through=at(60)), 6),
        (version("1", 0, trained_through=at(65)), 5),
        (version("1", 0, trained_through=at(69.999999)), 5),
        (version("1", 0, trained_through=at(70)), 4),
        (version("1", 0, trained_through=at(119.999999)), 3),
        (version("1", 0, trained_through=at(120)), 2),
        (version("1", 0, trained_through=at(300)), 0),
        (version("1", 65), 5),
        (version("1", 300, changed_at=at(70)), 4),
        (version("1", 65, trained_through=at(180)), 1),
        (version("1", 65, "candidate", trained_through=at(180)), 7),
    ],
)
@pytest.mark.parametrize("named", ["before the labels", "after them", "in place of another"])
async def test_new_labels_are_those_after_the_training_else_the_promotion_else_all(
    champion: Fact | None, expected: int, named: str, world: MetricsWorld
) -> None:
    facts = [prediction(f"p{n}", 0, version=str(n)) for n in range(7)]
    facts += [prediction("again", 0, entity_id="p3"), label("p0", 5, None), label("nobody's", 150)]
    facts += [label(f"p{n}", seconds) for n, seconds in enumerate(LABELS_AT)]
    if named == "in place of another":
        await world.take(*facts, version("0", 0, trained_through=at(100)))
        assert (await world.one(4 * MINUTE)).metrics.new_labels == 4
        # Of two named at one moment the greater name.
        champion = champion or version("1", 0, trained_through=at(-1))
        if champion[1]["stage"] == "candidate":
            expected = 4
        await world.take(champion)
    else:
        batches = [facts] if champion is None else [[champion], facts]
        for batch in batches if named == "before the labels" else reversed(batches):
            await world.take(*batch)
    assert (await world.one(10 * MINUTE)).metrics.new_labels == expected


async def test_new_labels_follow_corrections_and_leave_out_what_is_observed_at_or_after_as_of(
    world: MetricsWorld,
) -> None:
    await world.take(version("1", 0), *(prediction(f"p{n}", 0) for n in range(3)))
    await world.take(label("p0", 10), label("p1", 119), label("p2", 120))
    assert (await world.one(2 * MINUTE)).metrics.new_labels == 2
    assert (await world.one(3 * MINUTE)).metrics.new_labels == 3
    await world.take(label("p0", 11, None))
    assert (await world.one(4 * MINUTE)).metrics.new_labels == 2
    await world.take(label("p0", 12, "a class"), label("p1", 250, 0))
    assert (await world.one(5 * MINUTE)).metrics.new_labels == 3


@pytest.mark.parametrize(
    ("facts", "freshness"),
    [
        ([prediction("p", 10)], None),
        ([prediction("p", 10, data_as_of=at(5.5))], 114.5),
        ([prediction("p", 10), label("p", 20)], 100.0),
        ([prediction("p", 10), label("p", 20, None)], 100.0),
        ([prediction("p", 10, data_as_of=at(30)), label("p", 20)], 90.0),
        ([prediction("p", 10, data_as_of=at(5)), label("p", 20)], 100.0),
        # Of another model, or of an entity that nobody predicted.
        ([prediction("p", 10), prediction("q", 10, model="other"), label("q", 20), label("x", 20)], None),
        ([label("p", 20), prediction("p", 10)], 100.0),
        ([prediction("p", 10), label("p", 119.999999)], 0.000001),
        # At as_of or later is not before it.
        ([prediction("p", 10), label("p", 120)], None),
        ([prediction("p", 10, data_as_of=at(120))], None),
        ([prediction("p", 10, data_as_of=at(10**9)), prediction("q", 20, data_as_of=at(15))], 105.0),
        # The winning label alone.
        ([prediction("p", 10), label("p", 20), label("p", 130)], None),
        ([prediction("p", 10), label("p", 130), label("p", 20)], None),
    ],
)
async def test_data_freshness(facts: list[Fact], freshness: float | None, world: MetricsWorld) -> None:
    for fact in facts:
        await world.take(fact)
    found = {one.model: one.metrics.data_freshness_seconds for one in await world.cut(2 * MINUTE)}
    assert found["m"] == freshness


def lineage(seconds: float, kind: str | None) -> Fact:
    event = {"eventTime": at(seconds), "run": {"runId": "r"}, "job": {"namespace": "n", "name": "j"}}
    return PIPELINE_RUNS, event if kind is None else event | {"eventType": kind}


@pytest.mark.parametrize(
    ("facts", "freshness"),
    [
        ([], None),
        ([run(30)], 90.0),
        ([run(30), run(10), run(20)], 90.0),
        ([run(30), run(50, "failed")], 90.0),
        ([run(50, "failed")], None),
        ([run(30, model="m")], 90.0),
        ([run(30, model="other")], None),
        ([run(30, model="m"), run(40)], 80.0),
        ([run(40, model="m"), run(30)], 80.0),
        ([run(119.999999)], 0.000001),
        ([run(120)], None),
        ([run(30), run(120)], 90.0),
        ([run(30), run(30), run(30, pipeline="another")], 90.0),
        ([lineage(30, "COMPLETE")], 90.0),
        ([lineage(30, "COMPLETE"), lineage(50, "FAIL"), lineage(60, "START"), lineage(70, None)], 90.0),
        ([lineage(30, "ABORT")], None),
        ([lineage(30, "RUNNING")], None),
        ([lineage(30, "COMPLETE"), run(40, model="m")], 80.0),
    ],
)
async def test_pipeline_freshness(facts: list[Fact], freshness: float | None, world: MetricsWorld) -> None:
    assert await world.take(prediction("p", 0), *facts) == []
    assert (await world.one(2 * MINUTE)).metrics.pipeline_freshness_seconds == freshness


async def test_a_model_whose_every_version_is_retired_makes_no_snapshot_until_one_is_back(
    world: MetricsWorld,
) -> None:
    await world.take(version("1", 0), prediction("p", 0), prediction("q", 0, model="other"))
    assert [one.model for one in await world.cut(MINUTE)] == ["m", "other"]
    await world.take(version("1", 100, "retired"))
    assert [one.model for one in await world.cut(2 * MINUTE)] == ["other"]
    await world.take(prediction("r", 150, version="unregistered"))
    assert [one.model for one in await world.cut(3 * MINUTE)] == ["m", "other"]
    await world.take(version("unregistered", 200, "retired"))
    assert [one.model for one in await world.cut(4 * MINUTE)] == ["other"]
    await world.take(version("2", 250, "candidate"))
    found = [(one.model, one.sequence) for one in await world.cut(5 * MINUTE)]
    assert found == [("m", 3), ("other", 5)]


async def test_the_policy_in_force_is_the_last_received_whose_time_has_come(world: MetricsWorld) -> None:
    await world.take(prediction("p", 0))
    steps: list[tuple[Fact | None, str]] = [
        (None, "7d"),
        (policy(window="1h"), "1h"),
        (policy(window="1d", effective_at=at(4 * MINUTE)), "1h"),
        (None, "1d"),
        (policy(window="30d", effective_at=at(2 * MINUTE)), "30d"),
        (policy(window="all", effective_at=at(100 * MINUTE), model="other"), "30d"),
    ]
    for minute, (said, window) in enumerate(steps, start=1):
        if said:
            await world.take(said)
        snapshot = next(one for one in await world.cut(minute * MINUTE) if one.model == "m")
        assert snapshot.window == snapshot.policy.window == window
        assert snapshot.policy_sha256 == snapshot.policy.sha256()
    rows = await world.pool.fetch('SELECT * FROM published_policies ORDER BY model, "offset"')
    assert [row["document"]["window"] for row in rows] == ["1h", "1d", "30d", "all"]
    assert rows[1]["effective_at"] == START + timedelta(minutes=4)


async def test_unknown_fields_are_ignored_and_counted(world: MetricsWorld) -> None:
    before = UNKNOWN_FIELDS_TOTAL.labels(topic="predictions")._value.get()
    assert await world.take(prediction("p", 0, colour="red", shape={"round": True}), prediction("q", 0)) == []
    assert UNKNOWN_FIELDS_TOTAL.labels(topic="predictions")._value.get() - before == 2
    assert (await world.one(MINUTE)).metrics.predictions == 2


async def test_figures_saved_in_portions_are_the_same(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session may not be idle for long within the transaction, however many figures there are."""
    for model in ("a", "b", "c"):
        await world.take(policy(model=model, segments={"region": ["eu"]}))
        await world.take(prediction(f"{model}1", 0, model=model, segment={"region": "eu"}))
        await world.take(prediction(f"{model}2", 0, model=model), label(f"{model}2", 10, 0))
    whole = [one.known() for one in await world.cut(MINUTE)]
    all_figures = await world.figures()
    monkeypatch.setattr(cutting, "SERIES_IN_A_PORTION", 2)
    later = [one.known() for one in await world.cut(2 * MINUTE)]
    assert [one["metrics"]["evaluated_predictions"] for one in later] == [1, 1, 1]
    for one, two in zip(whole, later, strict=True):
        assert one["metrics"] | {"data_freshness_seconds": 110.0} == two["metrics"]
    assert (await world.figures()).keys() == all_figures.keys()
    assert len(all_figures) == 3 * (5 + 5) * 2 + 3 * 5 * 2


async def test_every_set_of_figures_is_told_with_all_that_the_contract_has(world: MetricsWorld) -> None:
    await world.take(policy(segments={"region": ["eu"]}), prediction("p", 10, segment={"region": "eu"}))
    await world.take(prediction("q", 10), label("q", 20), valued("r", 10, 2.5, model="other"), label("r", 20, 3))
    by_window = {one.model: one.metrics.known() for one in await world.cut(MINUTE)}
    figures = await world.figures()
    assert len(figures) == 2 * 5 + 4 * 5 + 2 * 5
    assert {frozenset(metrics) for metrics in figures.values()} == {frozenset(Metrics.model_fields)}
    for model, judged in by_window.items():
        assert figures[model, "", "", "7d"] == judged


async def test_the_same_figures_are_kept_once_wherever_they_stand(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), label("p", 20))
    await world.cut(MINUTE)
    stored = await world.pool.fetchval("SELECT figures FROM latest_figures")
    assert [len(one["places"]) for one in stored] == [2 * 5]
    assert None not in stored[0]["metrics"].values()


async def test_figures_that_the_last_release_wrote_are_told_as_well(world: MetricsWorld) -> None:
    await world.take(prediction("p", 10), label("p", 20))
    await world.cut(MINUTE)
    figures = await world.figures()
    one_by_one = [
        {"version": version, "segment": segment, "window": window, "metrics": metrics}
        for (_, version, segment, window), metrics in figures.items()
    ]
    await world.pool.execute("UPDATE latest_figures SET figures = $1", one_by_one)
    assert await world.figures() == figures
